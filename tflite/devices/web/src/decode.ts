// From a picture file to its pixels, exact whatever its transparency. A 2D canvas stores colours multiplied
// by alpha, so that they lose bits where a picture is translucent, and everything where it is transparent.
// Python reads the stored colours, and so does this.

import type { Box } from "./contract";

/** An error that the user of the page can do something about; its message is shown. */
export class Unreadable extends Error {}

/** As Python decodes: pixels as stored, not turned by EXIF, without colour profile and alpha. */
const AS_STORED = {
  imageOrientation: "none",
  premultiplyAlpha: "none",
  colorSpaceConversion: "none",
} as unknown as ImageBitmapOptions; // the DOM library no longer has "none", browsers do

/** A decoded picture; `close` frees its memory. */
export interface Picture {
  readonly file: Blob;
  readonly name: string;
  readonly bitmap: ImageBitmap;
  readonly width: number;
  readonly height: number;
  close(): void;
}

export async function decode(file: Blob, name: string): Promise<Picture> {
  try {
    const bitmap = await createImageBitmap(file, AS_STORED);
    return { file, name, bitmap, width: bitmap.width, height: bitmap.height, close: () => bitmap.close() };
  } catch {
    throw new Unreadable(`${name} is not a picture that this browser can read. Try a JPEG or PNG file.`);
  }
}

/** Rows of red, green, blue and alpha, 0–255. */
export type Rgba = Uint8Array | Uint8ClampedArray;

export async function readPixels(picture: Picture, box: Box): Promise<Rgba> {
  const drawn = fromCanvas(picture, box);
  if (isOpaque(drawn)) return drawn;
  const exact = (await fromDecoder(picture, box)) ?? fromTexture(picture, box);
  if (exact) return exact;
  throw new Unreadable(
    `This browser cannot read the colours of ${picture.name} where it is transparent. Save it without transparency.`,
  );
}

/** Exact where the picture is opaque. */
function fromCanvas({ bitmap }: Picture, box: Box): Uint8ClampedArray {
  const canvas = new OffscreenCanvas(box.width, box.height);
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  if (!context) throw new Unreadable("The picture is too large for this browser. Scale it down first.");
  context.drawImage(bitmap, -box.left, -box.top);
  return context.getImageData(0, 0, box.width, box.height).data;
}

function isOpaque(rgba: Rgba): boolean {
  for (let i = 3; i < rgba.length; i += 4) if (rgba[i] !== 255) return false;
  return true;
}

/** By WebCodecs; null where the browser lacks it, or it does not know the format. */
async function fromDecoder({ file }: Picture, box: Box): Promise<Rgba | null> {
  if (!("ImageDecoder" in self) || !(await ImageDecoder.isTypeSupported(file.type))) return null;
  const decoder = new ImageDecoder({
    data: await file.arrayBuffer(),
    type: file.type,
    colorSpaceConversion: "none",
  });
  try {
    const { image } = await decoder.decode();
    try {
      const rect = { x: box.left, y: box.top, width: box.width, height: box.height };
      const order = { RGBA: [0, 1, 2, 3], BGRA: [2, 1, 0, 3] }[String(image.format)];
      if (!order) return null;
      const stored = new Uint8Array(image.allocationSize({ rect }));
      await image.copyTo(stored, { rect, layout: [{ offset: 0, stride: 4 * box.width }] });
      return stored.map((_, i) => stored[i - (i % 4) + order[i % 4]]);
    } finally {
      image.close();
    }
  } catch {
    return null;
  } finally {
    decoder.close();
  }
}

/** By WebGL, whose textures hold colours as they are; null where the browser lacks it. */
function fromTexture({ bitmap }: Picture, box: Box): Rgba | null {
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  if (!gl) return null;
  try {
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
    gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    const rgba = new Uint8Array(4 * box.width * box.height);
    gl.readPixels(box.left, box.top, box.width, box.height, gl.RGBA, gl.UNSIGNED_BYTE, rgba);
    return gl.getError() === gl.NO_ERROR ? rgba : null; // an error where the picture is too large
  } finally {
    gl.getExtension("WEBGL_lose_context")?.loseContext(); // browsers keep a few contexts alive only
  }
}
