// JPEG (ITU T.81): the browser decodes it without its orientation and colour profile.

import { openBitmap } from "./bitmap";
import { broken, checkSize, latin1, Unreadable } from "./formats";
import { exifOrientation } from "./orientation";
import type { Stored } from "./decode";

const APP0 = 0xe0; // JFIF and Adobe tell how the colours are coded
const APP1 = 0xe1;
const APP14 = 0xee;
const APP15 = 0xef;
const COMMENT = 0xfe;
const START_OF_SCAN = 0xda;
const NO_FRAMES = [0xc4, 0xc8, 0xcc]; // tables among the markers of frames, 0xc0 to 0xcf

/**
 * 8 × 8 pixels of one CMYK colour, and its red, green and blue by Pillow's formula, which browsers share unless
 * they convert CMYK by a colour profile of their own.
 */
const PROBE =
  "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwADAgIDAgIDAwMDBAMDBAUIBQUEBAUKBwcGCAwKDAwLCgsLDQ4SEA0OEQ4LCxAWEBETFBUVFQwPFxgWFBg" +
  "SFBUU/8AAFAgACAAIBEMRAE0RAFkRAEsRAP/EABUAAQEAAAAAAAAAAAAAAAAAAAgF/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAA4EQwBNAFkASw" +
  "AAPwB0KYeFm//Z";
const PROBE_RGB = [164, 103, 42];

interface Header {
  readonly width: number;
  readonly height: number;
  readonly components: number;
  readonly orientation: number;
  /** The file without segments that do not define stored colours. */
  readonly plain: Blob;
}

export async function openJpeg(bytes: Uint8Array, name: string): Promise<Stored> {
  const { width, height, components, orientation, plain } = readHeader(bytes, name);
  checkSize(name, "JPEG", { width, height });
  if (components === 4 && !(await readsCmyk())) {
    throw new Unreadable(`${name} is a CMYK JPEG, which this browser converts by a colour profile. Save it as RGB.`);
  }
  const bitmap = await openBitmap(plain, name, "JPEG");
  if (bitmap.width !== width || bitmap.height !== height) throw broken(name, "JPEG", "its sizes contradict each other");
  return { name, orientation, ...bitmap };
}

function readHeader(bytes: Uint8Array, name: string): Header {
  const kept: Uint8Array[] = [bytes.subarray(0, 2)];
  let frame: Uint8Array | undefined;
  let exif: Uint8Array | undefined;
  let beginning = true; // only there, EXIF counts
  for (let at = 2; at + 4 <= bytes.length; ) {
    const marker = bytes[at + 1];
    if (bytes[at] !== 0xff || marker === 0xff) at++;
    else if (marker <= 1 || (marker >= 0xd0 && marker <= 0xd9)) at += 2;
    else if (marker === START_OF_SCAN) {
      if (!frame) break;
      kept.push(bytes.subarray(at));
      const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
      return {
        width: view.getUint16(3),
        height: view.getUint16(1),
        components: frame[5],
        orientation: exif ? exifOrientation(exif) : 1,
        plain: new Blob(kept as BlobPart[], { type: "image/jpeg" }),
      };
    } else {
      const end = at + 2 + (bytes[at + 2] << 8) + bytes[at + 3];
      const content = bytes.subarray(at + 4, end);
      const extra = (marker >= APP0 && marker <= APP15) || marker === COMMENT;
      if (!extra || marker === APP0 || marker === APP14) kept.push(bytes.subarray(at, end));
      beginning &&= extra;
      if (beginning && marker === APP1 && latin1(content, 0, 6) === "Exif\0\0") exif ??= content;
      if (marker >= 0xc0 && marker <= 0xcf && !NO_FRAMES.includes(marker) && content.length > 5) frame = content;
      at = end;
    }
  }
  throw broken(name, "JPEG", "it has no image");
}

async function readsCmyk(): Promise<boolean> {
  const bytes = Uint8Array.from(atob(PROBE), (character) => character.charCodeAt(0));
  const probe = await openBitmap(new Blob([bytes], { type: "image/jpeg" }), "a CMYK JPEG", "JPEG");
  try {
    const rgb = await probe.rgb({ top: 0, left: 0, height: 1, width: 1 });
    return PROBE_RGB.every((value, i) => Math.abs(value - rgb[i]) <= 1);
  } finally {
    probe.close();
  }
}
