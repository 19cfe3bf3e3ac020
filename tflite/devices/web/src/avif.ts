// AVIF (ISO/IEC 23008-12). The browser decodes a copy without turns (irot, imir), colour profile and alpha, so
// that it delivers the stored colours. The turns are told as an EXIF orientation; AVIF's EXIF does not count.

import { openBitmap } from "./bitmap";
import { broken, checkSize, latin1, Unreadable } from "./formats";
import type { Stored } from "./decode";

export async function openAvif(bytes: Uint8Array, name: string): Promise<Stored> {
  const plain = bytes.slice();
  const { width, height, orientation } = makePlain(plain, name);
  checkSize(name, "AVIF", { width, height });
  const bitmap = await openBitmap(new Blob([plain as BlobPart], { type: "image/avif" }), name, "AVIF");
  if (bitmap.width !== width || bitmap.height !== height) throw broken(name, "AVIF", "its sizes contradict each other");
  return { name, orientation, ...bitmap };
}

interface IsoBox {
  readonly type: string;
  readonly content: Uint8Array;
}

function* boxes(bytes: Uint8Array): Generator<IsoBox> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + 8 <= bytes.length; ) {
    const size = view.getUint32(at);
    const long = size === 1 && at + 16 <= bytes.length;
    const length = long ? Number(view.getBigUint64(at + 8)) : size || bytes.length - at;
    if (length < 8) return;
    yield { type: latin1(bytes, at + 4, at + 8), content: bytes.subarray(at + (long ? 16 : 8), at + length) };
    at += length;
  }
}

function child(bytes: Uint8Array, type: string, name: string): Uint8Array {
  for (const box of boxes(bytes)) if (box.type === type) return box.content;
  throw broken(name, "AVIF", `it has no ${type} box`);
}

/** Changes the file in place; returns what it tells of the primary item. */
function makePlain(file: Uint8Array, name: string): { width: number; height: number; orientation: number } {
  const meta = child(file, "meta", name).subarray(4);
  const pitm = child(meta, "pitm", name);
  const primary = pitm[0] ? u32(pitm, 4) : u16(pitm, 4);
  const iprp = child(meta, "iprp", name);
  const properties = [...boxes(child(iprp, "ipco", name))];
  const all = associations(child(iprp, "ipma", name));
  const own = all.filter(({ item }) => item === primary).map(({ index }) => properties[index - 1]);
  const find = (type: string) => own.find((box) => box?.type === type)?.content;
  const ispe = find("ispe");
  if (!ispe) throw broken(name, "AVIF", "it does not tell its size");
  if (find("clap")) throw new Unreadable(`${name} is an AVIF with a crop (clap). Save it as a PNG file.`);
  for (const { index, remove } of all) if (isExtra(properties[index - 1])) remove();
  removeAlpha(meta, name);
  return { width: u32(ispe, 4), height: u32(ispe, 8), orientation: exifNumber(find("irot"), find("imir")) };
}

function isExtra(property?: IsoBox): boolean {
  const profile = property?.type === "colr" && ["prof", "rICC"].includes(latin1(property.content, 0, 4));
  return profile || property?.type === "irot" || property?.type === "imir";
}

/** Alpha is an item of its own, which belongs to the colours by a reference of the type auxl. */
function removeAlpha(meta: Uint8Array, name: string): void {
  const iref = [...boxes(meta)].find(({ type }) => type === "iref")?.content ?? new Uint8Array(4);
  for (const { type, content } of boxes(iref.subarray(4))) {
    if (type === "prem") throw new Unreadable(`${name} is an AVIF with premultiplied alpha. Save it as a PNG file.`);
    // A type without a meaning; references of unknown types are ignored.
    if (type === "auxl") new Uint8Array(content.buffer, content.byteOffset - 4, 4).set([0x73, 0x6b, 0x69, 0x70]);
  }
}

const u16 = (bytes: Uint8Array, at: number) => (bytes[at] << 8) | bytes[at + 1];
const u32 = (bytes: Uint8Array, at: number) => u16(bytes, at) * 65536 + u16(bytes, at + 2);

interface Association {
  readonly item: number;
  /** Of the property, from 1. */
  readonly index: number;
  /** Writes 0, which means no property. */
  remove(): void;
}

function associations(ipma: Uint8Array): Association[] {
  const found: Association[] = [];
  const idSize = ipma[0] ? 4 : 2;
  const size = ipma[3] & 1 ? 2 : 1;
  let at = 8;
  for (let items = u32(ipma, 4); items > 0 && at < ipma.length; items--) {
    const item = idSize === 4 ? u32(ipma, at) : u16(ipma, at);
    const count = ipma[at + idSize];
    at += idSize + 1;
    for (let i = 0; i < count; i++, at += size) {
      const place = ipma.subarray(at, at + size);
      // The uppermost bit tells whether the property is essential.
      found.push({ item, index: size === 2 ? u16(place, 0) & 0x7fff : place[0] & 0x7f, remove: () => place.fill(0) });
    }
  }
  return found;
}

/** irot turns anticlockwise by quarters first, then imir mirrors: 0 top and bottom, 1 left and right. */
function exifNumber(irot?: Uint8Array, imir?: Uint8Array): number {
  const quarters = irot ? irot[0] & 3 : 0;
  if (!imir) return [1, 8, 3, 6][quarters];
  return imir[0] & 1 ? [2, 7, 4, 5][quarters] : [4, 5, 2, 7][quarters];
}
