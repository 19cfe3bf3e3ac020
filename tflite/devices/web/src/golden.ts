// The same inputs as in Python, and how far the answers are apart.

import type { GoldenFiles } from "./contract";
import { Unreadable } from "./picture";
import { fetchBytes, run, type Model } from "./runtime";

/** Of probabilities: that of an output quantized to 8 bits. */
export const QUANTIZATION_STEP = 1 / 256;

export interface Checked {
  readonly kind: string;
  readonly remark: string;
  readonly images: number;
  readonly sameTop1: number;
  readonly largestDifference: number;
}

export function passes(checked: Checked): boolean {
  // Float32 does not hold every difference of two multiples of the step.
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
    const answer = await run(model, images.subarray(i * size, (i + 1) * size));
    if (answer.length !== classes) {
      throw new Unreadable(`${model.file} has ${answer.length} classes, its golden answers ${classes}.`);
    }
    if (likeliest(answer) === likeliest(wanted)) sameTop1++;
    answer.forEach((p, j) => {
      const apart = Math.abs(p - wanted[j]);
      // Written so that NaN counts as apart.
      if (!(apart <= largestDifference)) largestDifference = Number.isNaN(apart) ? Infinity : apart;
    });
  }
  return { kind: model.kind, remark: model.remark, images: golden.count, sameTop1, largestDifference };
}

export function likeliest(probabilities: Float32Array): number {
  return probabilities.reduce((best, p, i) => (p > probabilities[best] ? i : best), 0);
}
