// Views of the models' outputs; text is always set as text, never as HTML.

import { label, type Contract } from "./contract";
import { passes, steps, type Checked } from "./golden";
import { decided, descending, probabilities, sameLabels, threshold } from "./outputs";
import type { Output, Model } from "./runtime";

const TOP = 5;

type Child = Node | string;

export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

export interface Classified {
  readonly model: Model;
  readonly output: Output;
}

/** What the prediction shows, in words. */
export function help(contract: Contract): string {
  const { task, labels } = contract;
  if (task === "binary") {
    const from = percent(threshold(contract, 1));
    const [first, second] = [label(contract, 0), label(contract, 1)];
    return `The model gives the probability of ${second}: from ${from} on the prediction is ${second}, below it is ${first}. The line on each bar is the threshold.`;
  }
  if (task === "multi") {
    return "Each label has a probability of its own. Those at or above their threshold, the line on the bar, are predicted: they come first and have a ✓.";
  }
  if (labels.length && labels.length <= TOP) return "The probability of each class.";
  return `The ${TOP} most probable ${labels.length ? `of ${labels.length} ` : ""}classes.`;
}

/** Which labels are shown, in which order. */
function shownLabels(all: readonly Classified[]): number[] {
  const [{ model, output }] = all;
  const { contract } = model;
  if (contract.task === "single") {
    const rows = all.map((one) => one.output.probabilities);
    return descending(rows[0].map((_, i) => Math.max(...rows.map((row) => row[i])))).slice(0, TOP);
  }
  const predicted = decided(output.probabilities, contract);
  const others = descending(probabilities(output.probabilities, contract));
  return [...predicted, ...others.filter((number) => !predicted.includes(number))];
}

export function predictionView(all: readonly Classified[]): Node[] {
  const { contract } = all[0].model;
  const rows = all.map(({ output }) => probabilities(output.probabilities, contract));
  const predicted = all.map(({ output }) => decided(output.probabilities, contract));
  const bars = element("ol", { className: `bars ${contract.task}`, role: "list" });
  for (const number of shownLabels(all)) {
    const [first, second] = rows.map((row) => row[number]);
    bars.append(
      element(
        "li",
        {},
        element("span", { className: "label" }, label(contract, number)),
        ...all.map(({ model }, place) =>
          bar(model, place, rows[place][number], number, predicted[place].includes(number)),
        ),
        ...(all.length > 1 ? [difference(first, second)] : []),
      ),
    );
  }
  return [bars, factsTable(all), ...all.map(({ model }) => model.note).filter(Boolean).map(remark)];
}

function bar({ kind, contract }: Model, place: number, probability: number, number: number, predicted: boolean): Node {
  const fill = element("i");
  fill.style.inlineSize = `${100 * probability}%`;
  const track = element("span", { className: "track" }, fill);
  const parts = [
    element("span", { className: "kind" }, kind),
    track,
    element("span", { className: "figure" }, percent(probability)),
  ];
  if (contract.task !== "single") {
    const from = threshold(contract, number);
    const line = element("b");
    line.style.insetInlineStart = `${100 * (contract.task === "binary" && number === 0 ? 1 - from : from)}%`;
    track.append(line);
    const tick = element("span", { className: "tick" });
    if (predicted) tick.append(element("span", { role: "img", ariaLabel: "predicted" }, "✓"));
    parts.push(tick);
  }
  return element("span", { className: `bar place-${place}` }, ...parts);
}

function difference(first: number, second: number): Node {
  return element("span", { className: "difference" }, `${signed(100 * (second - first))} points`);
}

/** The predictions in a sentence, and whether they differ. */
export function verdict([first, second]: readonly Classified[]): { text: string; differs: boolean } {
  const a = decided(first.output.probabilities, first.model.contract);
  if (!second) return { text: `${named(a, first, true)}.`, differs: false };
  const b = decided(second.output.probabilities, second.model.contract);
  const [one, other] = [first.model.kind, second.model.kind];
  const differs = !sameLabels(a, b);
  const predicted = differs
    ? `${one} predicts ${named(a, first)}, ${other} ${named(b, second)}`
    : `Both predict ${named(a, first)}`;
  const most = largestDifference(first.output.probabilities, second.output.probabilities);
  return { text: `${predicted}; ${other} is at most ${(100 * most).toFixed(2)} points from ${one}.`, differs };
}

function largestDifference(a: Float32Array, b: Float32Array): number {
  return a.reduce((largest, p, i) => Math.max(largest, Math.abs(p - b[i])), 0);
}

/** Labels in words. */
function named(numbers: readonly number[], { model, output }: Classified, withFigures = false): string {
  const { contract } = model;
  const figures = probabilities(output.probabilities, contract);
  if (!numbers.length) return withFigures ? "No label" : "no label";
  return numbers
    .map((number) => label(contract, number) + (withFigures ? `, ${percent(figures[number])}` : ""))
    .join(withFigures ? "; " : ", ");
}

function factsTable(all: readonly Classified[]): Node {
  return table(
    ["kind", "size", "time", "on"],
    all.map(({ model, output }) => [
      model.kind,
      size(model.bytes),
      `${output.milliseconds.toFixed(output.milliseconds < 10 ? 2 : 0)} ms`,
      model.runsOn,
    ]),
  );
}

export function checkView(all: readonly Checked[]): Node[] {
  const rows = all.map((row) => [
    row.kind,
    `${row.same} of ${row.images}`,
    steps(row.largestDifference),
    element("span", { className: passes(row) ? "same" : "differs" }, passes(row) ? "✓ same" : "✗ differs"),
  ]);
  const remarks = all.filter((row) => row.remark && !passes(row)).map((row) => remark(row.remark));
  return [table(["kind", "same prediction", "largest difference", "verdict"], rows), ...remarks];
}

function remark(text: string): Node {
  return element("p", { className: "muted" }, text);
}

function table(columns: readonly string[], rows: readonly Child[][]): Node {
  return element(
    "div",
    { className: "wide" },
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)))),
      element(
        "tbody",
        {},
        ...rows.map(([first, ...rest]) =>
          element("tr", {}, element("th", { scope: "row" }, first), ...rest.map((cell) => element("td", {}, cell))),
        ),
      ),
    ),
  );
}

export function size(bytes: number): string {
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(2)} MB` : `${(bytes / 1e3).toFixed(1)} kB`;
}

function percent(probability: number): string {
  return Number.isFinite(probability) ? `${(100 * probability).toFixed(1)} %` : "not finite";
}

function signed(value: number): string {
  const shown = Math.abs(value).toFixed(1);
  if (Number(shown) === 0) return shown;
  return `${value < 0 ? "−" : "+"}${shown}`;
}
