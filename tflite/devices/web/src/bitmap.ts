// The browser's own decoder, for formats that are not decoded here. It is given a file without orientation,
// colour profile and, but for lossless WebP, transparency: so no option of a browser, nor its version, changes
// the pixels.

import type { Box } from "./contract";
import { broken, Unreadable, type Format } from "./formats";
import { translucentPixels } from "./translucent";

/** For lossless WebP; the other files have neither. */
const AS_STORED: ImageBitmapOptions = { premultiplyAlpha: "none", colorSpaceConversion: "none" };

/** Pixels that are drawn at a time: some browsers allow canvases of 4096 × 4096 pixels only. */
const STRIP = 4_000_000;

/** A picture as the browser decoded it. */
export interface Bitmap {
  readonly width: number;
  readonly height: number;
  rgb(box: Box): Promise<Uint8Array>;
  close(): void;
}

export async function openBitmap(file: Blob, name: string, format: Format): Promise<Bitmap> {
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file, AS_STORED);
  } catch {
    throw broken(name, format);
  }
  const { width, height } = bitmap;
  return { width, height, rgb: (box) => readBox(file, bitmap, box, name), close: () => bitmap.close() };
}

async function readBox(file: Blob, bitmap: ImageBitmap, box: Box, name: string): Promise<Uint8Array> {
  const out = new Uint8Array(3 * box.width * box.height);
  const rows = Math.max(1, Math.floor(STRIP / box.width));
  for (let row = 0; row < box.height; row += rows) {
    const strip = { ...box, top: box.top + row, height: Math.min(rows, box.height - row) };
    const rgba = await readStrip(file, bitmap, strip);
    if (!rgba) {
      throw new Unreadable(`${name} has colours that this browser cannot give exactly. Save it without transparency`);
    }
    withoutAlpha(rgba, out, 3 * row * box.width);
  }
  return out;
}

/** A canvas is exact where the picture is opaque; it stays empty, and so transparent, where it is too large. */
async function readStrip(file: Blob, bitmap: ImageBitmap, box: Box): Promise<Rgba | null> {
  const context = new OffscreenCanvas(box.width, box.height).getContext("2d", {
    willReadFrequently: true,
    colorSpace: "srgb",
  });
  context?.drawImage(bitmap, -box.left, -box.top);
  const drawn = context?.getImageData(0, 0, box.width, box.height).data;
  return drawn && isOpaque(drawn) ? drawn : translucentPixels(file, bitmap, box);
}

/** Rows of red, green, blue and alpha, 0–255. */
type Rgba = Uint8Array | Uint8ClampedArray;

function isOpaque(rgba: Rgba): boolean {
  for (let i = 3; i < rgba.length; i += 4) if (rgba[i] !== 255) return false;
  return true;
}

function withoutAlpha(rgba: Rgba, out: Uint8Array, target: number): void {
  for (let source = 0; source < rgba.length; source += 4) {
    out[target++] = rgba[source];
    out[target++] = rgba[source + 1];
    out[target++] = rgba[source + 2];
  }
}
