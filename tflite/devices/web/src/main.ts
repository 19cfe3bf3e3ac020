// The page, from loading to the predictions.

import { hasCamera, photograph } from "./camera";
import type { Demo } from "./contract";
import { check } from "./golden";
import { decode, type Stored } from "./decode";
import { Unreadable } from "./formats";
import { uprightSize } from "./orientation";
import { fit, show, turnOf } from "./picture";
import { loadModels } from "./load";
import { fetchBytes, timedRun, type Model } from "./runtime";
import { checkView, element, help, predictionView, verdict, type Classified } from "./view";

// Shown side by side if the run has both.
const REFERENCE = "float32";
const COMPARED = "int8";

const $ = <T extends HTMLElement = HTMLElement>(id: string) => document.getElementById(id) as T;

async function main(): Promise<void> {
  const demo = JSON.parse(new TextDecoder().decode(await fetchBytes("demo.json"))) as Demo;
  document.title = `${demo.name} – keras-resnet demo`;
  $("name").textContent = demo.name;
  $("about").textContent = about(demo);
  $("help").textContent = help(demo.models[0].contract);
  $("inputs").textContent = `${demo.golden.count} ${demo.golden.of}`;
  const models = await loadModels(demo, say);
  offerPictures(models);
  $("check").addEventListener("click", () => work(() => checkAll(models, demo)));
  enable(true);
  say("Ready.");
}

function about(demo: Demo): string {
  const { labels, task, height, width } = demo.models[0].contract;
  const what = task === "multi" ? "labels" : "classes";
  const classes = labels.length ? `${labels.length} ${what}, ` : "";
  return `${classes}${width} × ${height} pixels. Pictures stay in this browser.`;
}

function offerPictures(models: readonly Model[]): void {
  const compared = pair(models);
  const classify = (file: Blob, name: string) => work(() => classifyFile(compared, file, name));
  const input = $<HTMLInputElement>("file");
  $("choose").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    const file = input.files?.[0];
    if (file) void classify(file, file.name);
    input.value = ""; // so that the same file can be chosen again
  });

  const dialog = $<HTMLDialogElement>("camera");
  $("take").addEventListener("click", () => dialog.close("take"));
  $("cancel").addEventListener("click", () => dialog.close());
  $("photograph").hidden = !hasCamera();
  $("photograph").addEventListener("click", () =>
    work(async () => {
      const photo = await photograph(dialog);
      if (photo) await classifyFile(compared, photo, "the photograph");
    }),
  );

  // A picture dropped outside the drop zone would otherwise replace the page.
  for (const type of ["dragover", "drop"]) window.addEventListener(type, (event) => event.preventDefault());
  const zone = $("drop");
  for (const [type, over] of [["dragover", true], ["dragleave", false], ["drop", false]] as const) {
    zone.addEventListener(type, () => zone.classList.toggle("over", over));
  }
  zone.addEventListener("drop", (event) => {
    const file = event.dataTransfer?.files[0];
    if (file) void classify(file, file.name);
  });
}

/** float32 and int8; if one is missing, the first two kinds. */
function pair(models: readonly Model[]): Model[] {
  const first = models.find(({ kind }) => kind === REFERENCE) ?? models[0];
  const others = models.filter((model) => model !== first);
  const second = others.find(({ kind }) => kind === COMPARED) ?? others[0];
  return second ? [first, second] : [first];
}

async function classifyFile(models: readonly Model[], file: Blob, name: string): Promise<void> {
  say(`Reading ${name} …`);
  const picture = await decode(file, name);
  try {
    await showPredictions(models, picture);
  } finally {
    picture.close();
  }
  say("Ready.");
}

async function showPredictions(models: readonly Model[], picture: Stored): Promise<void> {
  const classified: Classified[] = [];
  for (const model of models) {
    const pixels = await fit(picture, model.contract);
    if (!classified.length) {
      show(pixels, $<HTMLCanvasElement>("seen"));
      const { width, height } = uprightSize(picture, turnOf(picture, model.contract));
      $("seen-caption").textContent = `${picture.name}, ${width} × ${height}, as the model sees it`;
      $("pictures").hidden = false;
    }
    say(`Running ${model.kind} …`);
    await painted();
    classified.push({ model, output: await timedRun(model, pixels) });
  }
  const { text, differs } = verdict(classified);
  $("verdict").textContent = text;
  $("verdict").classList.toggle("differs", differs);
  $("answer").replaceChildren(...predictionView(classified));
}

async function checkAll(models: readonly Model[], demo: Demo): Promise<void> {
  const checked = [];
  for (const model of models) {
    say(`Checking ${model.kind} …`);
    await painted();
    checked.push(await check(model, demo.golden));
    $("checked").replaceChildren(...checkView(checked));
  }
  say("Ready.");
}

/** Runs one task at a time; its error is shown in the page. */
async function work(task: () => Promise<void>): Promise<void> {
  const focused = document.activeElement;
  if ($("choose").hasAttribute("disabled")) return;
  enable(false);
  $("error").hidden = true;
  try {
    await task();
  } catch (error) {
    complain(error);
    say("Ready.");
  } finally {
    enable(true);
    if (focused instanceof HTMLElement) focused.focus(); // disabling a button takes its focus
  }
}

function enable(on: boolean): void {
  for (const id of ["choose", "photograph", "check"]) $<HTMLButtonElement>(id).disabled = !on;
}

function say(message: string): void {
  $("status").textContent = message;
}

function complain(error: unknown): void {
  if (!(error instanceof Unreadable)) console.error(error);
  const message = error instanceof Error ? error.message : String(error);
  $("error").replaceChildren(element("span", {}, error instanceof Unreadable ? message : `This went wrong: ${message}`));
  $("error").hidden = false;
  $("error").scrollIntoView({ block: "nearest" });
}

/** Waits until the page is painted: the model blocks the main thread. */
function painted(): Promise<void> {
  return new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
}

main().catch((error) => {
  complain(error);
  say("Not ready.");
});
