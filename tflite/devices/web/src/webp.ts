// WebP (RFC 9649): the browser decodes a plain file made of the first frame alone, without orientation, profile
// and a lossy picture's alpha, so that it delivers the stored colours.

import { openBitmap } from "./bitmap";
import type { Box } from "./contract";
import { checkSize, broken, latin1 } from "./formats";
import { exifOrientation } from "./orientation";
import type { Stored } from "./decode";

interface Chunk {
  readonly type: string;
  readonly content: Uint8Array;
  /** Of the content, unless the file is cut off. */
  readonly length: number;
}

export async function openWebp(bytes: Uint8Array, name: string): Promise<Stored> {
  const length = 8 + u24(bytes, 4) + 2 ** 24 * bytes[7];
  if (bytes.length < length) throw broken(name, "WebP");
  const chunks = [...readChunks(bytes, 12)];
  const find = (type: string) => chunks.find((chunk) => chunk.type === type)?.content;
  const exif = find("EXIF");
  const orientation = exif ? exifOrientation(exif) : 1;
  const canvas = find("VP8X");
  const animated = find("ANMF");
  const frame = still(animated ? [...readChunks(animated, 16)] : chunks, name);
  const size = canvas ? { width: 1 + u24(canvas, 4), height: 1 + u24(canvas, 7) } : frame;
  checkSize(name, "WebP", size);
  const bitmap = await openBitmap(new Blob([frame.file as BlobPart], { type: "image/webp" }), name, "WebP");
  const { width, height } = bitmap;
  if (width !== frame.width || height !== frame.height) throw broken(name, "WebP", "its sizes contradict each other");
  if (!animated) {
    if (width !== size.width || height !== size.height) throw broken(name, "WebP", "its sizes contradict each other");
    return { name, orientation, ...bitmap };
  }
  const place = { left: 2 * u24(animated, 0), top: 2 * u24(animated, 3), width, height };
  return { name, orientation, ...size, rgb: (box) => placed(bitmap, place, box), close: bitmap.close };
}

function* readChunks(bytes: Uint8Array, at: number): Generator<Chunk> {
  while (at + 8 <= bytes.length) {
    const length = u24(bytes, at + 4) + 2 ** 24 * bytes[at + 7];
    yield { type: latin1(bytes, at, at + 4), content: bytes.subarray(at + 8, at + 8 + length), length };
    at += 8 + length + (length % 2);
  }
}

const u24 = (bytes: Uint8Array, at: number) => bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16);

/** A file of one lossy or lossless image. */
function still(chunks: readonly Chunk[], name: string): { file: Uint8Array; width: number; height: number } {
  const image = chunks.find(({ type }) => type === "VP8 " || type === "VP8L");
  if (!image || image.length < 10) throw broken(name, "WebP", "it has no frame");
  if (image.content.length < image.length) throw broken(name, "WebP");
  const content = new Uint8Array(image.content);
  if (image.type === "VP8L") {
    const width = 1 + (u24(content, 1) & 0x3fff);
    const height = 1 + ((u24(content, 2) >> 6) & 0x3fff);
    content[4] &= ~0x10; // alpha_is_used: some browsers then ignore alpha, others read it nevertheless
    return { file: file("VP8L", content), width, height };
  }
  // Alpha is in a chunk of its own, which is left out.
  const width = u24(content, 6) & 0x3fff;
  const height = (content[8] | (content[9] << 8)) & 0x3fff;
  return { file: file("VP8 ", content), width, height };
}

function file(type: string, content: Uint8Array): Uint8Array {
  const padded = content.length + (content.length % 2);
  const out = new Uint8Array(20 + padded);
  const view = new DataView(out.buffer);
  out.set([..."RIFF\0\0\0\0WEBP", ...type].map((character) => character.charCodeAt(0)));
  view.setUint32(4, 12 + padded, true);
  view.setUint32(16, content.length, true);
  out.set(content, 20);
  return out;
}

/** A frame of an animation on its canvas, which is black around it, as in Python. */
async function placed(bitmap: { rgb(box: Box): Promise<Uint8Array> }, place: Box, box: Box): Promise<Uint8Array> {
  const out = new Uint8Array(3 * box.width * box.height);
  const top = Math.max(place.top, box.top);
  const left = Math.max(place.left, box.left);
  const height = Math.min(place.top + place.height, box.top + box.height) - top;
  const width = Math.min(place.left + place.width, box.left + box.width) - left;
  if (height <= 0 || width <= 0) return out;
  const rgb = await bitmap.rgb({ top: top - place.top, left: left - place.left, height, width });
  for (let row = 0; row < height; row++) {
    const target = 3 * ((top - box.top + row) * box.width + left - box.left);
    out.set(rgb.subarray(3 * row * width, 3 * (row + 1) * width), target);
  }
  return out;
}
