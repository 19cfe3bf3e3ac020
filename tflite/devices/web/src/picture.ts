// From a decoded picture to the pixels that the model sees.

import { cropBox, type Contract } from "./contract";
import { readPixels, type Picture, type Rgba } from "./decode";
import { resize, type Pixels } from "./resample";

/** keras_resnet.preprocessing.fit_image in Python. */
export async function fit(picture: Picture, contract: Contract): Promise<Pixels> {
  const box = cropBox(picture.height, picture.width, contract);
  const rgba = await readPixels(picture, box);
  const data = contract.channels === 1 ? grey(rgba) : withoutAlpha(rgba);
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

function withoutAlpha(rgba: Rgba): Uint8Array {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let source = 0, target = 0; source < rgba.length; source += 4) {
    rgb[target++] = rgba[source];
    rgb[target++] = rgba[source + 1];
    rgb[target++] = rgba[source + 2];
  }
  return rgb;
}

/** ITU-R 601 luma in the fixed-point arithmetic of Pillow's convert("L"). */
function grey(rgba: Rgba): Uint8Array {
  const luma = new Uint8Array(rgba.length / 4);
  for (let i = 0; i < luma.length; i++) {
    luma[i] = (19595 * rgba[4 * i] + 38470 * rgba[4 * i + 1] + 7471 * rgba[4 * i + 2] + 0x8000) >> 16;
  }
  return luma;
}
