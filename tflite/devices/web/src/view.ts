// Views of the models' outputs; text is always set as text, never as HTML.

import { label } from "./contract";
import { likeliest, passes, steps, type Checked } from "./golden";
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

/** The most probable classes over all models, the most probable first. */
function topClasses(all: readonly Classified[]): number[] {
  const probabilities = all.map(({ output }) => output.probabilities);
  const best = Array.from(probabilities[0], (_, i) => Math.max(...probabilities.map((row) => row[i])));
  return best
    .map((_, i) => i)
    .sort((a, b) => best[b] - best[a])
    .slice(0, TOP);
}

export function predictionView(all: readonly Classified[]): Node[] {
  const contract = all[0].model.contract;
  const bars = element("ol", { className: "bars", role: "list" });
  for (const index of topClasses(all)) {
    bars.append(
      element(
        "li",
        {},
        element("span", { className: "label" }, label(contract, index)),
        ...all.map(({ model, output }, place) => bar(model.kind, output.probabilities[index], place)),
        ...(all.length > 1 ? [difference(all, index)] : []),
      ),
    );
  }
  return [bars, factsTable(all), ...all.map(({ model }) => model.note).filter(Boolean).map(remark)];
}

function bar(kind: string, probability: number, place: number): Node {
  const fill = element("i");
  fill.style.inlineSize = `${100 * probability}%`;
  return element(
    "span",
    { className: `bar place-${place}` },
    element("span", { className: "kind" }, kind),
    element("span", { className: "track" }, fill),
    element("span", { className: "figure" }, percent(probability)),
  );
}

function difference([first, second]: readonly Classified[], index: number): Node {
  const points = 100 * (second.output.probabilities[index] - first.output.probabilities[index]);
  return element("span", { className: "difference" }, `${signed(points)} points`);
}

/** The predictions in a sentence, and whether they differ. */
export function verdict([first, second]: readonly Classified[]): { text: string; differs: boolean } {
  const [a, said] = prediction(first);
  if (!second) return { text: `${said}, ${percent(a[likeliest(a)])}.`, differs: false };
  const [b, alsoSaid] = prediction(second);
  const most = a.reduce((largest, p, i) => Math.max(largest, Math.abs(p - b[i])), 0);
  const kinds = [first.model.kind, second.model.kind];
  const differs = likeliest(a) !== likeliest(b);
  const agreed = differs ? `${kinds[0]} says ${said}, ${kinds[1]} ${alsoSaid}` : `Both say ${said}`;
  return { text: `${agreed}; ${kinds[1]} is at most ${(100 * most).toFixed(2)} points from ${kinds[0]}.`, differs };
}

function prediction({ model, output }: Classified): [Float32Array, string] {
  return [output.probabilities, label(model.contract, likeliest(output.probabilities))];
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
    `${row.sameTop1} of ${row.images}`,
    steps(row.largestDifference),
    element("span", { className: passes(row) ? "same" : "differs" }, passes(row) ? "✓ same" : "✗ differs"),
  ]);
  const remarks = all.filter((row) => row.remark && !passes(row)).map((row) => remark(row.remark));
  return [table(["kind", "same top-1", "largest difference", "verdict"], rows), ...remarks];
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
