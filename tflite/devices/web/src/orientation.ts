// Which way up a picture is stored: EXIF's orientation, 1–8 (CIPA DC-008, 4.6.5.4), and turning by it.
// Browsers are not asked: which formats they turn, and whether they can be told not to, depends on the
// browser and its version.

import type { Box } from "./contract";

const TAG = 0x0112;
const SHORT = 3;

/** Of a block of EXIF data with or without its "Exif\0\0" prefix; 1, upright, where it says nothing valid. */
export function exifOrientation(exif: Uint8Array): number {
  const prefixed = exif[0] === 0x45 && exif[1] === 0x78;
  const tiff = prefixed ? exif.subarray(6) : exif;
  if (tiff.length < 8) return 1;
  const view = new DataView(tiff.buffer, tiff.byteOffset, tiff.length);
  const little = { 0x4949: true, 0x4d4d: false }[view.getUint16(0)];
  if (little === undefined || view.getUint16(2, little) !== 42) return 1;
  const directory = view.getUint32(4, little);
  if (directory + 2 > tiff.length) return 1;
  const entries = view.getUint16(directory, little);
  let orientation = 1;
  for (let i = 0, at = directory + 2; i < entries && at + 12 <= tiff.length; i++, at += 12) {
    const oneShort = view.getUint16(at + 2, little) === SHORT && view.getUint32(at + 4, little) === 1;
    if (view.getUint16(at, little) === TAG && oneShort) orientation = view.getUint16(at + 8, little);
  }
  return orientation >= 1 && orientation <= 8 ? orientation : 1;
}

/** How stored rows and columns become those of the upright picture: reversed first, then swapped. */
function turning(orientation: number) {
  return {
    swaps: orientation >= 5,
    reversesRows: [3, 4, 6, 7].includes(orientation),
    reversesColumns: [2, 3, 7, 8].includes(orientation),
  };
}

interface Size {
  readonly height: number;
  readonly width: number;
}

export function uprightSize({ height, width }: Size, orientation: number): Size {
  return turning(orientation).swaps ? { height: width, width: height } : { height, width };
}

/** Where a box of the upright picture lies in the stored one. */
export function storedBox(box: Box, stored: Size, orientation: number): Box {
  const { swaps, reversesRows, reversesColumns } = turning(orientation);
  const { top, left, height, width } = swaps
    ? { top: box.left, left: box.top, height: box.width, width: box.height }
    : box;
  return {
    top: reversesRows ? stored.height - top - height : top,
    left: reversesColumns ? stored.width - left - width : left,
    height,
    width,
  };
}

/** Turns stored pixels, rows of red, green and blue, upright. */
export function upright(rgb: Uint8Array, stored: Size, orientation: number): Uint8Array {
  if (orientation === 1) return rgb;
  const { swaps, reversesRows, reversesColumns } = turning(orientation);
  const { height, width } = uprightSize(stored, orientation);
  const out = new Uint8Array(rgb.length);
  let target = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const row = swaps ? x : y;
      const column = swaps ? y : x;
      const sourceRow = reversesRows ? stored.height - 1 - row : row;
      const sourceColumn = reversesColumns ? stored.width - 1 - column : column;
      const source = 3 * (sourceRow * stored.width + sourceColumn);
      out[target++] = rgb[source];
      out[target++] = rgb[source + 1];
      out[target++] = rgb[source + 2];
    }
  }
  return out;
}
