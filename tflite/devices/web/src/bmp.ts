// BMP, decoded here, as browsers differ in what they make of its alpha and of 16-bit colours. What Pillow
// refuses is refused; run lengths are read as Pillow does, with the first colour where they leave a gap.

import type { Box } from "./contract";
import { checkSize, broken } from "./formats";
import type { Stored } from "./decode";

const HEADERS = [12, 40, 52, 56, 64, 108, 124];
const RAW = 0;
const RLE8 = 1;
const RLE4 = 2;
const MASKED = 3;

interface Bitmap {
  readonly width: number;
  readonly height: number;
  readonly topDown: boolean;
  readonly bits: number;
  readonly compression: number;
  /** Blue, green, red of each index; of greys and pixels with colours, empty. */
  readonly palette: Uint8Array;
  readonly entry: number;
  /** Shift and largest value of red, green and blue in a pixel of 16 or 32 bits. */
  readonly fields: readonly (readonly [number, number])[];
  readonly data: Uint8Array;
}

export function openBmp(bytes: Uint8Array, name: string): Stored {
  const bitmap = readBitmap(bytes, name);
  const { width, height } = bitmap;
  checkSize(name, "BMP", bitmap);
  const rgb = async (box: Box) => decodeBox(bitmap, box, name);
  return { name, width, height, orientation: 1, rgb, close() {} };
}

function readBitmap(bytes: Uint8Array, name: string): Bitmap {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const header = bytes.length < 54 ? 0 : view.getUint32(14, true);
  if (!HEADERS.includes(header)) throw broken(name, "BMP", `a BMP with a header of ${header} bytes`);
  const old = header === 12;
  const u32 = (at: number) => (at + 4 <= bytes.length ? view.getUint32(at, true) : 0);
  const topDown = !old && view.getInt32(22, true) < 0;
  const bits = view.getUint16(old ? 24 : 28, true);
  const compression = old ? RAW : u32(30);
  const entry = old ? 3 : 4;
  const colours = bits > 8 ? 0 : (old ? 0 : u32(46)) || 2 ** bits;
  const masks = compression === MASKED ? [54, 58, 62].map(u32) : [];
  const after = 14 + header + (compression === MASKED && header === 40 ? 12 : 0);
  if (![1, 4, 8, 16, 24, 32].includes(bits)) throw broken(name, "BMP", `a BMP of ${bits} bits a pixel`);
  if (colours > 65536) throw broken(name, "BMP", `a BMP of ${colours} colours`);
  const fits = { [RAW]: true, [RLE8]: bits === 8, [RLE4]: bits === 4, [MASKED]: bits >= 16 }[compression];
  if (!fits) throw broken(name, "BMP", `a BMP of compression ${compression} and ${bits} bits a pixel`);
  // Some programs leave the palette out of the offset.
  const inside = u32(10) === 14 + header && bits <= 8;
  const offset = (u32(10) || after) + (inside || !u32(10) ? entry * colours : 0);
  return {
    width: old ? view.getUint16(18, true) : u32(18),
    height: old ? view.getUint16(20, true) : Math.abs(view.getInt32(22, true)),
    topDown,
    bits,
    compression,
    palette: bytes.subarray(after, after + entry * colours),
    entry,
    fields: bits <= 8 ? [] : fields(bits, masks, name),
    data: bytes.subarray(offset),
  };
}

/** Pillow's raw modes: 5-5-5 bits unless masks say 5-6-5, and whole bytes in any place. */
function fields(bits: number, masks: readonly number[], name: string): Bitmap["fields"] {
  if (!masks.some(Boolean)) {
    return bits === 16 ? [[10, 31], [5, 31], [0, 31]] : [[16, 255], [8, 255], [0, 255]];
  }
  return masks.map((mask) => {
    const shift = mask ? 31 - Math.clz32(mask & -mask) : 0;
    const most = mask >>> shift;
    if (bits === 16 ? ![31, 63].includes(most) : most !== 255) throw broken(name, "BMP", "a BMP of unusual colour fields");
    return [shift, most] as const;
  });
}

function decodeBox(bitmap: Bitmap, box: Box, name: string): Uint8Array {
  const { width, height, bits, compression, topDown } = bitmap;
  const runs = compression === RLE8 || compression === RLE4;
  const stride = runs ? width : Math.floor((width * bits + 31) / 32) * 4;
  const data = runs ? runLengths(bitmap) : bitmap.data;
  if (data.length < stride * (height - 1) + Math.ceil(runs ? width : (width * bits) / 8)) {
    throw broken(name, "BMP");
  }
  const colour = bits > 8 ? direct(bitmap) : indexed(bitmap, runs ? 8 : bits, name);
  const out = new Uint8Array(3 * box.width * box.height);
  for (let y = 0, target = 0; y < box.height; y++) {
    const row = topDown ? box.top + y : height - 1 - box.top - y;
    for (let x = 0; x < box.width; x++, target += 3) colour(data, row * stride, box.left + x, out, target);
  }
  return out;
}

type Colour = (data: Uint8Array, row: number, column: number, out: Uint8Array, target: number) => void;

function indexed(bitmap: Bitmap, bits: number, name: string): Colour {
  const { entry } = bitmap;
  const palette = isRamp(bitmap) ? ramp(entry, bits === 1 ? 255 : 1) : bitmap.palette;
  const mask = 2 ** bits - 1;
  return (data, row, column, out, target) => {
    const bit = column * bits;
    const at = entry * ((data[row + (bit >> 3)] >> (8 - bits - (bit & 7))) & mask);
    if (at + entry > palette.length) throw broken(name, "BMP", "an index without a colour");
    for (let i = 0; i < 3; i++) out[target + i] = palette[at + 2 - i];
  };
}

/** Whether the palette holds the numbers themselves, from black on; Pillow then reads greys, also beyond it. */
function isRamp({ palette, entry }: Bitmap): boolean {
  const colours = Math.floor(palette.length / entry);
  const grey = (i: number) => (colours === 2 ? 255 * i : i);
  return palette.every((value, at) => at % entry === 3 || value === grey(Math.floor(at / entry)));
}

function ramp(entry: number, step: number): Uint8Array {
  return Uint8Array.from({ length: 256 * entry }, (_, at) => step * Math.floor(at / entry));
}

function direct({ bits, fields }: Bitmap): Colour {
  const size = bits / 8;
  return (data, row, column, out, target) => {
    const at = row + size * column;
    let pixel = 0;
    for (let i = 0; i < size; i++) pixel |= data[at + i] << (8 * i);
    fields.forEach(([shift, most], i) => {
      out[target + i] = Math.floor((((pixel >>> shift) & most) * 255) / most);
    });
  };
}

/** One index a byte, in rows without padding. */
function runLengths({ data, width, height, compression }: Bitmap): Uint8Array {
  const halves = compression === RLE4;
  const out = new Uint8Array(width * height);
  let at = 0;
  for (let read = 0, x = 0; at < out.length && read + 1 < data.length; ) {
    const count = data[read++];
    const value = data[read++];
    if (count) {
      for (let i = 0; i < count && x < width; i++, x++) {
        out[at++] = halves ? (i % 2 ? value & 15 : value >> 4) : value;
      }
    } else if (value === 0) {
      at += (width - (at % width)) % width;
      x = 0;
    } else if (value === 1) break;
    else if (value === 2) {
      at += data[read++] + width * data[read++];
      x = at % width;
    } else {
      const bytes = halves ? Math.ceil(value / 2) : value;
      for (let i = 0; i < value && at < out.length; i++) {
        const byte = data[read + (halves ? i >> 1 : i)];
        out[at++] = halves ? (i % 2 ? byte & 15 : byte >> 4) : byte;
      }
      read += bytes;
      read += (data.byteOffset + read) % 2; // to an even place in the file
      x += value;
    }
  }
  return out.subarray(0, at); // shorter than the picture where the file is
}
