// Which format a file has, by its content, and the words of every refusal: those of keras_resnet/pictures.py.

/** An error that the user of the page can do something about; its message is shown. */
export class Unreadable extends Error {}

/** Pictures with more pixels are refused by their header. Python reads larger JPEGs scaled, no browser does. */
export const MAX_PIXELS = 100_000_000;

export type Format = "JPEG" | "PNG" | "BMP" | "GIF" | "WebP" | "AVIF";

const SUPPORTED = "supported are JPEG, PNG, BMP, GIF, WebP, AVIF";
const AVIF_BRANDS = ["avif", "avis"];
const HEIC_BRANDS = ["heic", "heix", "hevc", "hevx", "heim", "heis", "hevm", "hevs"];
const BMP_HEADERS = [12, 16, 40, 52, 56, 64, 108, 124];
/** Beginnings of files that are found among pictures and are not read. */
const FOREIGN = [
  ["%PDF", "a PDF"],
  ["8BPS", "a Photoshop file"],
  ["\0\0\0\x0cjP  ", "a JPEG 2000"],
  ["\xff\x4f\xff\x51", "a JPEG 2000"],
  ["\0\0\0\x0cJXL ", "a JPEG XL"],
  ["\xff\x0a", "a JPEG XL"],
  ["\0\0\x01\0", "an icon (ICO)"],
  ["P4\n", "a PBM"],
  ["P5\n", "a PGM"],
  ["P6\n", "a PPM"],
  ["<svg", "an SVG"],
  ["<?xml", "XML"],
  ["<!doctype", "a web page (HTML)"],
  ["<html", "a web page (HTML)"],
  ["version https://git-lfs", "a pointer of Git LFS; fetch the file: git lfs pull"],
  ["PK\x03\x04", "a ZIP archive"],
  ["Rar!", "a RAR archive"],
  ["\x1f\x8b", "a gzip archive"],
] as const;

/**
 * The format by the first bytes.
 *
 * @throws Unreadable It is one that the page does not read, or none.
 */
export function formatOf(bytes: Uint8Array, name: string): Format {
  if (!bytes.length) throw new Unreadable(`${name} is empty`);
  const head = latin1(bytes, 0, 64);
  if (head.startsWith("\xff\xd8\xff")) return "JPEG";
  if (head.startsWith("\x89PNG\r\n\x1a\n")) return "PNG";
  if (/^GIF8[79]a/.test(head)) return "GIF";
  if (/^RIFF....WEBP/s.test(head)) return "WebP";
  if (/^(II[*+]\0|MM\0[*+])/.test(head)) throw foreign(name, "a TIFF");
  if (head.slice(4, 8) === "ftyp") return ofBrands(head, name);
  if (head.startsWith("BM") && BMP_HEADERS.some((size) => head.slice(14, 18) === `${String.fromCharCode(size)}\0\0\0`)) {
    return "BMP";
  }
  const start = head.replace(/^[\xef\xbb\xbf \t\r\n]+/, "").toLowerCase();
  const found = FOREIGN.find(([magic]) => start.startsWith(magic.toLowerCase()) || head.startsWith(magic));
  throw found ? foreign(name, found[1]) : new Unreadable(`${name} is not a readable picture`);
}

/** By the brands of an ISO base media file: the major one, then the others. */
function ofBrands(head: string, name: string): Format {
  const length = [0, 1, 2, 3].reduce((total, i) => 256 * total + head.charCodeAt(i), 0);
  const brands = [head.slice(8, 12)];
  for (let at = 16; at + 4 <= Math.min(length, head.length); at += 4) brands.push(head.slice(at, at + 4));
  for (const brand of brands) {
    if (AVIF_BRANDS.includes(brand)) return "AVIF";
    if (HEIC_BRANDS.includes(brand)) throw foreign(name, "a HEIC");
  }
  throw foreign(name, "a video (MP4, MOV or the like)");
}

const foreign = (name: string, kind: string) => new Unreadable(`${name} is ${kind}; ${SUPPORTED}`);

export function broken(name: string, format: Format, reason = ""): Unreadable {
  return new Unreadable(`${name} is cut off or broken inside (${format}${reason && `: ${reason}`})`);
}

/** @throws Unreadable There are more pixels than the limit, or none. */
export function checkSize(name: string, format: Format, { width, height }: { width: number; height: number }): void {
  if (!width || !height) throw broken(name, format, "it has no pixels");
  if (width * height > MAX_PIXELS) {
    throw new Unreadable(`${name} has more than ${MAX_PIXELS.toLocaleString("en-US")} pixels`);
  }
}

/** Text of one byte a character. */
export function latin1(bytes: Uint8Array, from: number, to: number): string {
  return String.fromCharCode(...bytes.subarray(from, Math.min(to, bytes.length)));
}
