// From a picture file to the pixels that the model sees.

import { cropBox, type Contract } from "./contract";
import { resize, type Pixels } from "./resample";

/** A fault that the person at the page can do something about; its message is for reading. */
export class Unreadable extends Error {}

/** As Python decodes: no turning by EXIF, no colour profile. */
const AS_STORED = {
  imageOrientation: "none",
  premultiplyAlpha: "none",
  colorSpaceConversion: "none",
} as unknown as ImageBitmapOptions; // the DOM library no longer knows "none", browsers do

export async function decode(file: Blob, name: string): Promise<ImageBitmap> {
  try {
    return await createImageBitmap(file, AS_STORED);
  } catch {
    throw new Unreadable(`${name} is not a picture that this browser can read. Try a JPEG or PNG file.`);
  }
}

/** keras_resnet.preprocessing.fit_image in Python. */
export function fit(picture: ImageBitmap, contract: Contract): Pixels {
  const box = cropBox(picture.height, picture.width, contract);
  const canvas = new OffscreenCanvas(box.width, box.height);
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  if (!context) throw new Unreadable("The picture is too large for this browser. Scale it down first.");
  context.drawImage(picture, -box.left, -box.top);
  const rgba = context.getImageData(0, 0, box.width, box.height).data;
  const data = contract.channels === 1 ? grey(rgba) : withoutAlpha(rgba);
  const cropped = { data, height: box.height, width: box.width, channels: contract.channels };
  return resize(cropped, contract.height, contract.width, contract.interpolation);
}

/** What the model sees, for people to see. */
export function show(pixels: Pixels, canvas: HTMLCanvasElement): void {
  const { data, height, width, channels } = pixels;
  canvas.height = height;
  canvas.width = width;
  const image = new ImageData(width, height);
  for (let pixel = 0; pixel < height * width; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      image.data[4 * pixel + channel] = data[channels * pixel + (channel % channels)];
    }
    image.data[4 * pixel + 3] = 255;
  }
  canvas.getContext("2d")?.putImageData(image, 0, 0);
}

function withoutAlpha(rgba: Uint8ClampedArray): Uint8Array {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let source = 0, target = 0; source < rgba.length; source += 4) {
    rgb[target++] = rgba[source];
    rgb[target++] = rgba[source + 1];
    rgb[target++] = rgba[source + 2];
  }
  return rgb;
}

/** ITU-R 601 luma in the fixed-point arithmetic of Pillow's convert("L"). */
function grey(rgba: Uint8ClampedArray): Uint8Array {
  const luma = new Uint8Array(rgba.length / 4);
  for (let i = 0; i < luma.length; i++) {
    luma[i] = (19595 * rgba[4 * i] + 38470 * rgba[4 * i + 1] + 7471 * rgba[4 * i + 2] + 0x8000) >> 16;
  }
  return luma;
}
