// What outputs mean, by the contract's task: keras_resnet.preprocessing.decisions in Python.

import type { Contract } from "./contract";

/** Where the contract has none. */
const DEFAULT_THRESHOLD = 0.5;

/** The probability of each label; the one output of a binary model is that of its second label. */
export function probabilities(output: Float32Array, contract: Contract): Float32Array {
  return contract.task === "binary" ? Float32Array.of(1 - output[0], output[0]) : output;
}

/** From which probability on a label is predicted, as a float32 like the outputs; of two labels, the second. */
export function threshold(contract: Contract, label: number): number {
  const given = contract.thresholds[contract.task === "binary" ? 0 : label];
  return Math.fround(given ?? DEFAULT_THRESHOLD);
}

/** The predicted labels by their numbers, the most probable first; none or several for a multi model. */
export function decided(output: Float32Array, contract: Contract): number[] {
  if (contract.task === "single") return [mostProbable(output)];
  if (contract.task === "binary") return [output[0] >= threshold(contract, 1) ? 1 : 0];
  return descending(output).filter((label) => output[label] >= threshold(contract, label));
}

export function descending(values: Float32Array): number[] {
  return Array.from(values.keys()).sort((a, b) => values[b] - values[a]);
}

export const sameLabels = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((label) => b.includes(label));

function mostProbable(values: Float32Array): number {
  return values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
}
