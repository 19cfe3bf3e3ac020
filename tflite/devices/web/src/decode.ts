// From a picture file to its pixels as they are stored, the same as in Python (keras_resnet/pictures.py):
// without colour profile, transparency and orientation.

import { openAvif } from "./avif";
import { openBmp } from "./bmp";
import type { Box } from "./contract";
import { formatOf, Unreadable, type Format } from "./formats";
import { openGif } from "./gif";
import { openJpeg } from "./jpeg";
import { openPng } from "./png";
import { openWebp } from "./webp";

/** An opened picture; `close` frees its memory. */
export interface Stored {
  readonly name: string;
  /** As stored, not turned. */
  readonly width: number;
  readonly height: number;
  /** EXIF's, 1–8: how it is turned upright. */
  readonly orientation: number;
  /** Rows of red, green and blue, 0–255. */
  rgb(box: Box): Promise<Uint8Array>;
  close(): void;
}

const OPEN: Readonly<Record<Format, (bytes: Uint8Array, name: string) => Stored | Promise<Stored>>> = {
  JPEG: openJpeg,
  PNG: openPng,
  BMP: openBmp,
  GIF: openGif,
  WebP: openWebp,
  AVIF: openAvif,
};

/** @throws Unreadable The file is not a picture, too large, broken, or of a format that is not read. */
export async function decode(file: Blob, name: string): Promise<Stored> {
  let bytes: Uint8Array;
  try {
    bytes = new Uint8Array(await file.arrayBuffer());
  } catch {
    throw new Unreadable(`${name} cannot be read. A folder is not a picture.`);
  }
  return OPEN[formatOf(bytes, name)](bytes, name);
}
