// The inputs that Python ran, and how much the outputs differ from Python's.

import type { GoldenFiles } from "./contract";
import { Unreadable } from "./formats";
import { fetchBytes, run, type Model } from "./runtime";

/** Of a probability quantized to 8 bits. */
export const QUANTIZATION_STEP = 1 / 256;

export interface Checked {
  readonly kind: string;
  readonly remark: string;
  readonly images: number;
  readonly sameTop1: number;
  readonly largestDifference: number;
}

export function passes(checked: Checked): boolean {
  // In float32, a difference of two multiples of the step is not always exact.
  return checked.sameTop1 === checked.images && checked.largestDifference <= QUANTIZATION_STEP * (1 + 1e-6);
}

/** In quantization steps. */
export function steps(largest: number): string {
  return Number.isFinite(largest) ? `${(largest / QUANTIZATION_STEP).toFixed(3)}/256` : "not finite";
}

export async function check(model: Model, golden: GoldenFiles): Promise<Checked> {
  const images = await fetchBytes(golden.images);
  const bytes = await fetchBytes(golden.answers[model.kind]);
  const { height, width, channels } = model.contract;
  const size = height * width * channels;
  if (images.length !== golden.count * size || bytes.length % (4 * golden.count)) {
    throw new Unreadable(`${golden.images} is cut short. Export the page again.`);
  }
  const expected = new Float32Array(bytes.buffer);
  const classes = expected.length / golden.count;
  let sameTop1 = 0;
  let largestDifference = 0;
  for (let i = 0; i < golden.count; i++) {
    const wanted = expected.subarray(i * classes, (i + 1) * classes);
    const output = await run(model, images.subarray(i * size, (i + 1) * size));
    if (output.length !== classes) {
      throw new Unreadable(`${model.file} has ${output.length} classes, its golden outputs ${classes}.`);
    }
    if (likeliest(output) === likeliest(wanted)) sameTop1++;
    output.forEach((p, j) => {
      const difference = Math.abs(p - wanted[j]);
      // Negated, so that NaN counts as a difference.
      if (!(difference <= largestDifference)) {
        largestDifference = Number.isNaN(difference) ? Infinity : difference;
      }
    });
  }
  return { kind: model.kind, remark: model.remark, images: golden.count, sameTop1, largestDifference };
}

export function likeliest(probabilities: Float32Array): number {
  return probabilities.reduce((best, p, i) => (p > probabilities[best] ? i : best), 0);
}
