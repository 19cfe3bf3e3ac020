// The inputs that Python ran, and how much the outputs differ from Python's.

import type { GoldenFiles } from "./contract";
import { Unreadable } from "./formats";
import { decided, sameLabels } from "./outputs";
import { fetchBytes, run, type Model } from "./runtime";

/** Of a probability quantized to 8 bits. */
export const QUANTIZATION_STEP = 1 / 256;

export interface Checked {
  readonly kind: string;
  readonly remark: string;
  readonly images: number;
  /** Of how many images the predicted labels are the same. */
  readonly same: number;
  readonly largestDifference: number;
}

export function passes(checked: Checked): boolean {
  // In float32, a difference of two multiples of the step is not always exact.
  return checked.same === checked.images && checked.largestDifference <= QUANTIZATION_STEP * (1 + 1e-6);
}

/** In quantization steps. */
export function steps(largest: number): string {
  return Number.isFinite(largest) ? `${(largest / QUANTIZATION_STEP).toFixed(3)}/256` : "not finite";
}

export async function check(model: Model, golden: GoldenFiles): Promise<Checked> {
  const images = await fetchBytes(golden.images);
  const bytes = await fetchBytes(golden.answers[model.kind]);
  const { contract } = model;
  const size = contract.height * contract.width * contract.channels;
  if (images.length !== golden.count * size || bytes.length % (4 * golden.count)) {
    throw new Unreadable(`${golden.images} is cut short. Export the page again.`);
  }
  const expected = new Float32Array(bytes.buffer);
  const width = expected.length / golden.count;
  let same = 0;
  let largestDifference = 0;
  for (let i = 0; i < golden.count; i++) {
    const wanted = expected.subarray(i * width, (i + 1) * width);
    const output = await run(model, images.subarray(i * size, (i + 1) * size));
    if (output.length !== width) {
      throw new Unreadable(`${model.file} has ${output.length} outputs, its golden outputs ${width}.`);
    }
    if (sameLabels(decided(output, contract), decided(wanted, contract))) same++;
    output.forEach((p, j) => {
      const difference = Math.abs(p - wanted[j]);
      // Negated, so that NaN counts as a difference.
      if (!(difference <= largestDifference)) {
        largestDifference = Number.isNaN(difference) ? Infinity : difference;
      }
    });
  }
  return { kind: model.kind, remark: model.remark, images: golden.count, same, largestDifference };
}
