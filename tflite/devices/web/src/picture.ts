// From a decoded picture to the pixels that the model sees.

import { cropBox, type Contract } from "./contract";
import type { Stored } from "./decode";
import { storedBox, upright, uprightSize } from "./orientation";
import { resize, type Pixels } from "./resample";

/** The orientation by which the model wants a picture turned. */
export const turnOf = (picture: Stored, contract: Contract): number =>
  contract.orientation === "ignore" ? 1 : picture.orientation;

/** keras_resnet.preprocessing.load_image in Python. */
export async function fit(picture: Stored, contract: Contract): Promise<Pixels> {
  const orientation = turnOf(picture, contract);
  const { height, width } = uprightSize(picture, orientation);
  const box = cropBox(height, width, contract);
  const stored = storedBox(box, picture, orientation);
  const rgb = upright(await picture.rgb(stored), stored, orientation);
  const data = contract.channels === 1 ? grey(rgb) : rgb;
  const cropped = { data, height: box.height, width: box.width, channels: contract.channels };
  return resize(cropped, contract.height, contract.width, contract.interpolation);
}

/** Draws what the model sees. */
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

/** ITU-R 601 luma in the fixed-point arithmetic of Pillow's convert("L"). */
function grey(rgb: Uint8Array): Uint8Array {
  const luma = new Uint8Array(rgb.length / 3);
  for (let i = 0; i < luma.length; i++) {
    luma[i] = (19595 * rgb[3 * i] + 38470 * rgb[3 * i + 1] + 7471 * rgb[3 * i + 2] + 0x8000) >> 16;
  }
  return luma;
}
