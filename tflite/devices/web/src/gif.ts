// The first frame of a GIF (89a), decoded here: a browser clears transparent pixels, Python reads their
// stored colour. As in Pillow, pixels around a small frame have the transparent colour, or the first one.

import type { Box } from "./contract";
import { checkSize, broken } from "./formats";
import type { Stored } from "./decode";

/** First row and step of each pass of an interlaced frame. */
const INTERLACED = [[0, 8], [4, 8], [2, 4], [1, 2]] as const;
const WHOLE = [[0, 1]] as const;
const MOST_BITS = 12;

interface Frame {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  readonly interlaced: boolean;
  readonly palette: Uint8Array;
  readonly around: number;
  readonly codeBits: number;
  readonly data: Uint8Array;
}

export function openGif(bytes: Uint8Array, name: string): Stored {
  const u16 = (at: number) => bytes[at] | (bytes[at + 1] << 8);
  const frame = firstFrame(bytes, u16);
  if (!frame) throw broken(name, "GIF", "it has no frame");
  // A frame that is larger than the screen enlarges it.
  const width = Math.max(u16(6), frame.left + frame.width);
  const height = Math.max(u16(8), frame.top + frame.height);
  checkSize(name, "GIF", { width, height });
  const rgb = async (box: Box) => decodeBox(frame, box, name);
  return { name, width, height, orientation: 1, rgb, close() {} };
}

function firstFrame(bytes: Uint8Array, u16: (at: number) => number): Frame | null {
  const table = (flags: number, at: number) => bytes.subarray(at, at + (flags & 128 ? 6 << (flags & 7) : 0));
  const everywhere = table(bytes[10], 13);
  let around = 0;
  for (let at = 13 + everywhere.length; at < bytes.length; ) {
    if (bytes[at] === 0x21) {
      if (bytes[at + 1] === 0xf9 && bytes[at + 3] & 1) around = bytes[at + 6];
      at = subBlocks(bytes, at + 2).end;
    } else if (bytes[at] === 0x2c && at + 10 < bytes.length) {
      const flags = bytes[at + 9];
      const own = table(flags, at + 10);
      const data = at + 10 + own.length;
      return {
        left: u16(at + 1),
        top: u16(at + 3),
        width: u16(at + 5),
        height: u16(at + 7),
        interlaced: Boolean(flags & 64),
        palette: own.length ? own : everywhere.length ? everywhere : greys(),
        around,
        codeBits: bytes[data],
        data: joined(subBlocks(bytes, data + 1).blocks),
      };
    } else if (bytes[at] === 0x3b) return null;
    else at++;
  }
  return null;
}

/** Where the colours are missing, the numbers are greys. */
const greys = () => Uint8Array.from({ length: 768 }, (_, i) => Math.floor(i / 3));

function subBlocks(bytes: Uint8Array, at: number): { blocks: Uint8Array[]; end: number } {
  const blocks = [];
  while (at < bytes.length && bytes[at]) {
    blocks.push(bytes.subarray(at + 1, at + 1 + bytes[at]));
    at += 1 + bytes[at];
  }
  return { blocks, end: at + 1 };
}

function joined(blocks: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(blocks.reduce((total, block) => total + block.length, 0));
  let at = 0;
  for (const block of blocks) {
    out.set(block, at);
    at += block.length;
  }
  return out;
}

function decodeBox(frame: Frame, box: Box, name: string): Uint8Array {
  const indices = uncompressed(frame.data, frame.codeBits, frame.width * frame.height);
  if (!indices) throw broken(name, "GIF");
  const out = new Uint8Array(3 * box.width * box.height);
  const { palette } = frame;
  const put = (index: number, target: number) => {
    for (let i = 0; i < 3; i++) out[target + i] = palette[3 * index + i];
  };
  for (let target = 0; target < out.length; target += 3) put(frame.around, target);
  let source = 0;
  for (const [first, step] of frame.interlaced ? INTERLACED : WHOLE) {
    for (let row = first; row < frame.height; row += step, source += frame.width) {
      const y = frame.top + row - box.top;
      if (y < 0 || y >= box.height) continue;
      for (let column = 0; column < frame.width; column++) {
        const x = frame.left + column - box.left;
        if (x >= 0 && x < box.width) put(indices[source + column], 3 * (y * box.width + x));
      }
    }
  }
  return out;
}

/** LZW of variable code size; null where the data is broken or too short. */
function uncompressed(data: Uint8Array, bits: number, count: number): Uint8Array | null {
  if (bits < 1 || bits >= MOST_BITS) return null;
  const clear = 1 << bits;
  const out = new Uint8Array(count);
  const prefix = new Uint16Array(1 << MOST_BITS);
  const suffix = new Uint8Array(1 << MOST_BITS);
  const lengths = new Uint16Array(1 << MOST_BITS);
  for (let code = 0; code < clear; code++) {
    suffix[code] = code;
    lengths[code] = 1;
  }
  let size = bits + 1;
  let next = clear + 2;
  let previous = -1;
  let buffer = 0;
  let held = 0;
  let at = 0;
  /** Writes a code's string, which is stored from its end; returns its first index. */
  const write = (code: number): number => {
    for (let place = at + lengths[code] - 1; ; code = prefix[code], place--) {
      if (place < count) out[place] = suffix[code];
      if (lengths[code] === 1) return suffix[code];
    }
  };
  for (let read = 0; at < count; ) {
    while (held < size) {
      if (read === data.length) return null;
      buffer |= data[read++] << held;
      held += 8;
    }
    const code = buffer & ((1 << size) - 1);
    buffer >>>= size;
    held -= size;
    if (code === clear) {
      size = bits + 1;
      next = clear + 2;
      previous = -1;
      continue;
    }
    if (code === clear + 1 || code > next || (code === next && previous < 0)) return null;
    if (previous >= 0 && next < 1 << MOST_BITS) {
      // The string before and one index more; of a code that is just being defined, its own first index.
      prefix[next] = previous;
      lengths[next] = lengths[previous] + 1;
      let first = code === next ? previous : code;
      while (lengths[first] > 1) first = prefix[first];
      suffix[next] = suffix[first];
      next++;
      if (next === 1 << size && size < MOST_BITS) size++;
    } else if (code >= next) return null;
    write(code);
    at += lengths[code];
    previous = code;
  }
  return out;
}
