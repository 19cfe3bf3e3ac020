// Drives the demo in headless Chromium like a user, and prints what the page shows as one JSON object.
// node drive.mjs SETTINGS.json; test_browser.py has the expectations.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const settings = JSON.parse(readFileSync(process.argv[2], "utf8"));
const { chromium } = createRequire(path.join(settings.web, "package.json"))("playwright-core");

const ARGUMENTS = [
  "--no-sandbox", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
  "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
];
const launch = (...more) => chromium.launch({ executablePath: settings.chromium, args: [...ARGUMENTS, ...more] });
const browser = await launch("--disable-gpu");
const foreign = [];
const complaints = [];

async function open(address, options = {}, prepare = async () => {}, where = browser) {
  const context = await where.newContext({ viewport: { width: 1100, height: 900 }, ...options });
  const page = await context.newPage();
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(address) && !/^(blob|data):/.test(url)) foreign.push(url);
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    // LiteRT writes its log to the console as errors.
    if (message.type() === "error" && !/^(INFO|WARNING): /.test(message.text())) complaints.push(message.text());
  });
  await page.addInitScript(countTasks);
  await prepare(page);
  await page.goto(address);
  await done(page, 1);
  return page;
}

/** In the page: counts completed tasks. */
function countTasks() {
  window.tasks = 0;
  document.addEventListener("DOMContentLoaded", () => {
    const status = document.getElementById("status");
    const count = () => { if (/^(Ready|Not ready)\.$/.test(status.textContent)) window.tasks++; };
    new MutationObserver(count).observe(status, { childList: true });
  });
}

const tasks = (page) => page.evaluate(() => window.tasks);
const done = (page, count) => page.waitForFunction((count) => window.tasks >= count, count, { timeout: 60000 });

/** Starts a task of the page, and waits until it is done. */
async function work(page, act) {
  const before = await tasks(page);
  await act();
  await done(page, before + 1);
}

async function classify(page, picture) {
  await work(page, () => page.setInputFiles("#file", picture));
  return answer(page);
}

const answer = (page) =>
  page.evaluate(() => {
    const text = (node) => node?.textContent ?? "";
    const seen = document.getElementById("seen");
    return {
      error: document.getElementById("error").hidden ? "" : text(document.getElementById("error")),
      labels: [...document.querySelectorAll(".bars .label")].map(text),
      first: [...document.querySelectorAll(".bars .place-0 .figure")].map((n) => parseFloat(text(n))),
      second: [...document.querySelectorAll(".bars .place-1 .figure")].map((n) => parseFloat(text(n))),
      differences: [...document.querySelectorAll(".bars .difference")].map(text),
      verdict: text(document.getElementById("verdict")),
      notes: [...document.querySelectorAll("#answer .muted")].map(text),
      facts: [...document.querySelectorAll("#answer tbody tr")].map((row) => [...row.children].map(text)),
      pixels: seen.hidden ? [] : [...seen.getContext("2d").getImageData(0, 0, seen.width, seen.height).data],
      size: [seen.height, seen.width],
    };
  });

async function checked(page) {
  await work(page, () => page.click("#check"));
  return page.evaluate(() => [...document.querySelectorAll("#checked tbody tr")].map((row) => [...row.children].map((n) => n.textContent)));
}

const shot = (page, name) => page.screenshot({ path: path.join(settings.screenshots, `${name}.png`), fullPage: true });
const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

async function manifestWith(page, change) {
  await page.route("**/demo.json", async (route) => {
    const demo = await (await route.fetch()).json();
    change(demo);
    await route.fulfill({ json: demo });
  });
}

/** A page that loads some of the kinds only, which is faster. */
const only = (page, ...kinds) =>
  manifestWith(page, (demo) => { demo.models = demo.models.filter(({ kind }) => kinds.includes(kind)); });

async function light() {
  const page = await open(settings.served, { colorScheme: "light" });
  await shot(page, "light-empty");
  const isolated = await page.evaluate(() => self.crossOriginIsolated);
  const title = await page.title();
  const about = await page.textContent("#about");
  const inputs = await page.textContent("#inputs");
  const photographs = [];
  for (const picture of settings.photographs) photographs.push(await classify(page, picture));
  const golden = await checked(page);
  await shot(page, "light");
  const unreadable = await classify(page, settings.unreadable);
  await shot(page, "light-error");
  const dropped = await drop(page, settings.pictures[0]);
  return { isolated, title, about, inputs, photographs, golden, unreadable, dropped };
}

async function drop(page, picture) {
  const bytes = [...readFileSync(picture)];
  await work(page, () =>
    page.evaluate((bytes) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
      document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
    }, bytes),
  );
  return answer(page);
}

async function fitted() {
  const seen = {};
  for (const [name, change] of Object.entries(settings.rules)) {
    const page = await open(settings.served, {}, (page) =>
      manifestWith(page, (demo) => {
        demo.models.length = 1;
        Object.assign(demo.models[0].contract, change);
      }),
    );
    seen[name] = [];
    for (const picture of settings.pictures) {
      const { pixels, size } = await classify(page, picture);
      seen[name].push({ pixels, size });
    }
  }
  return seen;
}

/** A page of a model of each task, in a wide and a narrow window. */
async function byTask() {
  const seen = {};
  for (const [task, address] of Object.entries(settings.tasks)) {
    const page = await open(address, { viewport: { width: 1280, height: 900 }, colorScheme: "light" });
    const help = await page.textContent("#help");
    const pictures = [];
    for (const picture of settings.pictures) pictures.push({ ...(await classify(page, picture)), ticks: await ticks(page) });
    const golden = await checked(page);
    await shot(page, `${task}-1280`);
    const narrow = await open(address, { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, colorScheme: "dark" });
    await classify(narrow, settings.pictures[0]);
    await shot(narrow, `${task}-390`);
    seen[task] = { help, about: await page.textContent("#about"), pictures, golden, overflow: await overflow(narrow) };
  }
  return seen;
}

/** For each label and kind, whether the page marks it as predicted; and where its threshold is, in percent. */
const ticks = (page) =>
  page.evaluate(() =>
    [...document.querySelectorAll(".bars li")].map((row) => ({
      predicted: [...row.querySelectorAll(".tick")].map((tick) => tick.textContent === "✓"),
      thresholds: [...row.querySelectorAll(".track b")].map((line) => parseFloat(line.style.insetInlineStart)),
    })),
  );

async function narrow() {
  const page = await open(settings.served, { colorScheme: "dark", viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
  await classify(page, settings.pictures[0]);
  await checked(page);
  await shot(page, "dark-phone");
  const buttons = await page.evaluate(() => [...document.querySelectorAll("main button")].map((b) => b.getBoundingClientRect().height));
  const tables = await page.evaluate(() => [...document.querySelectorAll(".wide")].map((t) => t.scrollWidth - t.clientWidth));
  return { overflow: await overflow(page), tables, buttons };
}

async function keyboard() {
  const page = await open(settings.served, { colorScheme: "dark" }, (page) => only(page, "float32", "int8"));
  const focused = () => page.evaluate(() => document.activeElement?.id ?? "");
  const rings = [];
  const tab = async () => {
    await page.keyboard.press("Tab");
    rings.push(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle));
    return focused();
  };
  // Before the dialog opens: the browser must intercept it.
  const chooser = page.waitForEvent("filechooser", { timeout: 10000 });
  const order = [await tab()];
  await page.keyboard.press("Enter");
  await work(page, async () => (await chooser).setFiles(settings.pictures[0]));
  order.push(await tab());
  await page.keyboard.press("Enter");
  await page.waitForSelector("#camera[open]");
  const inCamera = await focused();
  await page.waitForFunction(() => document.getElementById("video").currentTime > 0);
  await shot(page, "dark-camera");
  await work(page, () => page.keyboard.press("Enter"));
  const photograph = await answer(page);
  order.push(await tab());
  await work(page, () => page.keyboard.press("Space"));
  const golden = await page.evaluate(() => document.querySelectorAll("#checked tbody tr").length);
  await shot(page, "dark");
  const names = await page.locator("button, canvas, video").evaluateAll((all) => all.map((n) => n.ariaLabel || n.textContent || n.title));
  return { order, rings, inCamera, photograph, golden, names };
}

async function damaged() {
  const page = await open(settings.served, {}, (page) =>
    page.route("**/model_float32.tflite", (route) => route.fulfill({ body: Buffer.alloc(5000, 7) })),
  );
  await shot(page, "damaged");
  const status = await page.textContent("#status");
  return { status, ...(await answer(page)) };
}

/** Changes the golden outputs of a kind. */
const cheat = (page, kind) =>
  page.route(`**/golden/${kind}.bin`, async (route) => {
    const body = await (await route.fetch()).body();
    body.writeFloatLE(body.readFloatLE(0) + 0.01, 0);
    await route.fulfill({ body });
  });

async function cheating() {
  const page = await open(settings.served, {}, async (page) => {
    await only(page, "float32", "dynamic");
    await cheat(page, "float32");
    await cheat(page, "dynamic");
  });
  return { rows: await checked(page), remarks: await page.locator("#checked p").allTextContents() };
}

/** On a GPU that Chromium's SwiftShader stands for. */
async function gpu() {
  const browser = await launch("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader");
  const seen = {};
  try {
    const cases = {
      sound: async (page) => { await only(page, "float32", "float16"); await cheat(page, "float16"); },
      broken: async (page) => { await only(page, "float32"); await page.addInitScript(breakGpu); },
    };
    for (const [name, prepare] of Object.entries(cases)) {
      const page = await open(settings.served, {}, prepare, browser);
      const there = await page.evaluate(async () => Boolean(await navigator.gpu?.requestAdapter()));
      seen[name] = { there, ...(await classify(page, settings.pictures[0])) };
      await page.context().close();
    }
  } finally {
    await browser.close();
  }
  return seen;
}

/** In the page: a GPU that fails half-way through. */
function breakGpu() {
  const fail = () => { throw new Error("out of order"); };
  Object.assign(GPUDevice.prototype, { createComputePipeline: fail, createComputePipelineAsync: fail });
}

async function exported() {
  const page = await open(settings.exported);
  const isolated = await page.evaluate(() => self.crossOriginIsolated);
  return { isolated, ...(await classify(page, settings.pictures[0])), golden: await checked(page) };
}

const scenarios = { light, fitted, tasks: byTask, narrow, keyboard, exported, damaged, cheating, gpu };
const seen = {};
for (const [name, play] of Object.entries(scenarios)) {
  const quietly = name === "damaged"; // the runtime logs errors there
  const before = complaints.length;
  const began = Date.now();
  seen[name] = await play().catch((error) => ({ failure: String(error) }));
  // A page in the background opens no dialog.
  await Promise.all(browser.contexts().map((context) => context.close()));
  process.stderr.write(`${name} ${Date.now() - began} ms\n`);
  if (quietly) complaints.length = before;
}
await browser.close();
console.log(JSON.stringify({ ...seen, foreign, complaints }));
