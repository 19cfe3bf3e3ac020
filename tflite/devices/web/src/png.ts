// PNG (W3C, third edition), decoded here: a browser would multiply colours by alpha, correct gamma, and round
// 16 bits; Python reads the stored colours, and the upper 8 of 16 bits. Of an APNG, the default image.

import type { Box } from "./contract";
import { checkSize, broken, latin1, Unreadable } from "./formats";
import { exifOrientation } from "./orientation";
import type { Stored } from "./decode";

const CHANNELS: Readonly<Record<number, number>> = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
const PALETTE = 3;
const DEPTHS: Readonly<Record<number, readonly number[]>> = {
  0: [1, 2, 4, 8, 16],
  2: [8, 16],
  3: [1, 2, 4, 8],
  4: [8, 16],
  6: [8, 16],
};

/** Chunks whose checksum matters; the pixels have one inside. */
const CHECKED = ["IHDR", "PLTE"];

/** Of each pass: first column and row, and the steps between columns and rows. */
const WHOLE = [[0, 0, 1, 1]] as const;
const ADAM7 = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;

interface Header {
  readonly width: number;
  readonly height: number;
  readonly depth: number;
  readonly colours: number;
  readonly interlaced: boolean;
}

export function openPng(bytes: Uint8Array, name: string): Stored {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const compressed: Uint8Array[] = [];
  let header: Header | undefined;
  let palette = new Uint8Array(0);
  let orientation: number | undefined;
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const type = latin1(bytes, at + 4, at + 8);
    const content = bytes.subarray(at + 8, at + 8 + length);
    if (type === "IHDR") header = readHeader(content, name);
    if (type === "PLTE") palette = new Uint8Array(content);
    if (type === "IDAT") compressed.push(content);
    if (type === "eXIf") orientation ??= exifOrientation(content);
    if (type === "IEND") break;
    if (CHECKED.includes(type) && checksum(bytes.subarray(at + 4, at + 8 + length)) !== endOf(view, at + 8 + length)) {
      throw broken(name, "PNG", `bad checksum of ${type}`);
    }
    at += 12 + length;
  }
  if (!header) throw broken(name, "PNG", "it has no header");
  checkSize(name, "PNG", header);
  const { width, height } = header;
  const rgb = (box: Box) => decodeBox(header, palette, compressed, box, name);
  return { name, width, height, orientation: orientation ?? 1, rgb, close() {} };
}

/** The checksum that follows a chunk; 0 where the file ends. */
const endOf = (view: DataView, at: number) => (at + 4 <= view.byteLength ? view.getUint32(at) : 0);

/** CRC-32, as in zlib. */
function checksum(bytes: Uint8Array): number {
  let sum = -1;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = sum & 1 ? (sum >>> 1) ^ 0xedb88320 : sum >>> 1;
  }
  return ~sum >>> 0;
}

function readHeader(content: Uint8Array, name: string): Header {
  if (content.length < 13) throw broken(name, "PNG");
  const view = new DataView(content.buffer, content.byteOffset, 13);
  const [depth, colours, compression, filters, interlace] = content.subarray(8, 13);
  if (compression || filters) throw broken(name, "PNG", "unknown compression");
  if (!DEPTHS[colours]?.includes(depth)) throw broken(name, "PNG", `colour type ${colours} of ${depth} bits`);
  return { width: view.getUint32(0), height: view.getUint32(4), depth, colours, interlaced: interlace === 1 };
}

/** Reads every row, also those outside of the box, so that a file that is cut off is noticed. */
async function decodeBox(
  { width, height, depth, colours, interlaced }: Header,
  palette: Uint8Array,
  compressed: Uint8Array[],
  box: Box,
  name: string,
): Promise<Uint8Array> {
  const channels = CHANNELS[colours];
  const pixelBits = channels * depth;
  const distance = Math.max(1, pixelBits >> 3);
  const colour = colours === PALETTE ? fromPalette(palette) : channels < 3 ? fromGrey : fromColours;
  const scale = colours === PALETTE || depth > 8 ? 1 : 255 / (2 ** depth - 1);
  const out = new Uint8Array(3 * box.width * box.height);
  const inflated = new Inflated(compressed);
  try {
    for (const [x0, y0, stepX, stepY] of interlaced ? ADAM7 : WHOLE) {
      const columns = Math.ceil((width - x0) / stepX);
      const rows = Math.ceil((height - y0) / stepY);
      if (columns < 1 || rows < 1) continue;
      const stride = Math.ceil((columns * pixelBits) / 8);
      const first = Math.max(0, Math.ceil((box.left - x0) / stepX));
      const last = Math.min(columns, Math.ceil((box.left + box.width - x0) / stepX));
      let above: Uint8Array = new Uint8Array(stride);
      for (let row = 0; row < rows; row++) {
        const line = await inflated.take(stride + 1);
        const current = line.subarray(1);
        unfilter(line[0], current, above, distance);
        above = current;
        const y = y0 + row * stepY - box.top;
        if (y < 0 || y >= box.height) continue;
        const samples = inBytes(current, depth, columns * channels, scale);
        for (let column = first; column < last; column++) {
          colour(samples, column * channels, out, 3 * (y * box.width + x0 + column * stepX - box.left));
        }
      }
    }
  } catch (error) {
    if (error instanceof Unreadable) throw error;
    throw broken(name, "PNG");
  } finally {
    inflated.close();
  }
  return out;
}

type Colour = (samples: Uint8Array, source: number, out: Uint8Array, target: number) => void;

const fromGrey: Colour = (samples, source, out, target) => out.fill(samples[source], target, target + 3);

const fromColours: Colour = (samples, source, out, target) => {
  out[target] = samples[source];
  out[target + 1] = samples[source + 1];
  out[target + 2] = samples[source + 2];
};

const fromPalette =
  (palette: Uint8Array): Colour =>
  (samples, source, out, target) =>
    fromColours(palette, 3 * samples[source], out, target);

/** Samples of any depth in 8 bits. */
function inBytes(line: Uint8Array, depth: number, count: number, scale: number): Uint8Array {
  if (depth === 8) return line;
  if (depth === 16) return Uint8Array.from({ length: count }, (_, i) => line[2 * i]);
  const perByte = 8 / depth;
  const mask = 2 ** depth - 1;
  return Uint8Array.from({ length: count }, (_, i) => {
    const shift = 8 - depth * ((i % perByte) + 1);
    return scale * ((line[Math.floor(i / perByte)] >> shift) & mask);
  });
}

/** In place; `distance` is that of a byte to the same byte of the pixel before, at least 1. */
function unfilter(filter: number, line: Uint8Array, above: Uint8Array, distance: number): void {
  const left = (i: number) => (i < distance ? 0 : line[i - distance]);
  if (filter === 1) for (let i = distance; i < line.length; i++) line[i] += line[i - distance];
  else if (filter === 2) for (let i = 0; i < line.length; i++) line[i] += above[i];
  else if (filter === 3) for (let i = 0; i < line.length; i++) line[i] += (left(i) + above[i]) >> 1;
  else if (filter === 4) {
    for (let i = 0; i < line.length; i++) line[i] += paeth(left(i), above[i], i < distance ? 0 : above[i - distance]);
  } else if (filter) throw new RangeError(`filter ${filter}`);
}

function paeth(a: number, b: number, c: number): number {
  const toA = Math.abs(b - c);
  const toB = Math.abs(a - c);
  const toC = Math.abs(a + b - 2 * c);
  if (toA <= toB && toA <= toC) return a;
  return toB <= toC ? b : c;
}

/** A zlib stream, read piece by piece; what follows the last piece that is taken is not looked at. */
class Inflated {
  private readonly reader: ReadableStreamDefaultReader<Uint8Array>;
  private rest = new Uint8Array(0);
  private at = 0;

  constructor(compressed: Uint8Array[]) {
    const stream = new Blob(compressed as BlobPart[]).stream();
    this.reader = stream.pipeThrough(new DecompressionStream("deflate")).getReader();
  }

  /** The next `count` bytes, which the caller may change. */
  async take(count: number): Promise<Uint8Array> {
    const out = new Uint8Array(count);
    for (let filled = 0; filled < count; ) {
      if (this.at === this.rest.length) {
        const { value, done } = await this.reader.read();
        if (done) throw new RangeError("cut off");
        this.rest = new Uint8Array(value.buffer, value.byteOffset, value.length) as Uint8Array<ArrayBuffer>;
        this.at = 0;
      }
      const piece = this.rest.subarray(this.at, this.at + count - filled);
      out.set(piece, filled);
      filled += piece.length;
      this.at += piece.length;
    }
    return out;
  }

  close(): void {
    this.reader.cancel().catch(() => undefined); // bytes after the stream, which Python ignores too
  }
}
