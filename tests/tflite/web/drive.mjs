// Drives the demo in headless Chromium as a person would, and prints what it saw as one JSON object.
// node drive.mjs SETTINGS.json; the tests beside it say what should have been seen.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const settings = JSON.parse(readFileSync(process.argv[2], "utf8"));
const { chromium } = createRequire(path.join(settings.web, "package.json"))("playwright-core");

const ARGUMENTS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
  "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
];
const browser = await chromium.launch({ executablePath: settings.chromium, args: ARGUMENTS });
const foreign = [];
const complaints = [];

async function open(address, options = {}, prepare = async () => {}) {
  const context = await browser.newContext({ viewport: { width: 1100, height: 900 }, ...options });
  const page = await context.newPage();
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(address) && !/^(blob|data):/.test(url)) foreign.push(url);
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    // LiteRT writes its remarks to the console as errors.
    if (message.type() === "error" && !/^(INFO|WARNING): /.test(message.text())) complaints.push(message.text());
  });
  await prepare(page);
  await page.goto(address);
  await settled(page);
  return page;
}

const settled = (page) =>
  page.waitForFunction(() => /^(Ready|Not ready)\.$/.test(document.getElementById("status").textContent), null, { timeout: 60000 });

async function classify(page, picture) {
  await page.setInputFiles("#file", picture);
  await page.waitForFunction(() => document.getElementById("status").textContent !== "Ready.", null, { timeout: 2000 }).catch(() => {});
  await settled(page);
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
      verdict: text(document.querySelector(".verdict")),
      facts: [...document.querySelectorAll("#answer tbody tr")].map((row) => [...row.children].map(text)),
      pixels: seen.hidden ? [] : [...seen.getContext("2d").getImageData(0, 0, seen.width, seen.height).data],
      size: [seen.height, seen.width],
    };
  });

async function checked(page) {
  await page.click("#check");
  await page.waitForFunction((n) => document.querySelectorAll("#checked tbody tr").length === n, settings.kinds.length);
  await settled(page);
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

async function light() {
  const page = await open(settings.served, { colorScheme: "light" });
  await shot(page, "light-empty");
  const isolated = await page.evaluate(() => self.crossOriginIsolated);
  const title = await page.title();
  const about = await page.textContent("#about");
  const photographs = [];
  for (const picture of settings.photographs) photographs.push(await classify(page, picture));
  const golden = await checked(page);
  await shot(page, "light");
  const unreadable = await classify(page, settings.unreadable);
  await shot(page, "light-error");
  const after = await classify(page, settings.pictures[0]);
  return { isolated, title, about, photographs, golden, unreadable, after };
}

async function fitted() {
  const seen = {};
  for (const [name, change] of Object.entries(settings.rules)) {
    const page = await open(settings.served, {}, (page) =>
      manifestWith(page, (demo) => demo.models.forEach((model) => Object.assign(model.contract, change))),
    );
    seen[name] = [];
    for (const picture of settings.pictures) {
      const { pixels, size } = await classify(page, picture);
      seen[name].push({ pixels, size });
    }
  }
  return seen;
}

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
  const page = await open(settings.served, { colorScheme: "dark" });
  const focused = () => page.evaluate(() => document.activeElement?.id ?? "");
  // Asked for long before: the browser is told to hand its dialog over, and takes a while.
  const chooser = page.waitForEvent("filechooser", { timeout: 10000 });
  await page.keyboard.press("Tab");
  const order = [await focused()];
  await page.keyboard.press("Enter");
  await (await chooser).setFiles(settings.pictures[0]);
  await page.waitForSelector(".bars");
  await settled(page);
  await page.keyboard.press("Tab");
  order.push(await focused());
  await page.keyboard.press("Enter");
  await page.waitForSelector("#camera[open]");
  const inCamera = await focused();
  await page.waitForTimeout(300);
  await shot(page, "dark-camera");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.getElementById("seen-caption").textContent.startsWith("the photograph"));
  await settled(page);
  const photograph = await answer(page);
  await page.focus("#check");
  await page.keyboard.press("Space");
  await page.waitForSelector("#checked tbody tr");
  await settled(page);
  await shot(page, "dark");
  return { order, inCamera, photograph };
}

async function dropped() {
  const page = await open(settings.served);
  const bytes = [...readFileSync(settings.pictures[0])];
  await page.evaluate((bytes) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
    document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }, bytes);
  await page.waitForSelector(".bars");
  await settled(page);
  return answer(page);
}

async function damaged() {
  const page = await open(settings.served, {}, (page) =>
    page.route("**/model_float32.tflite", (route) => route.fulfill({ body: Buffer.alloc(5000, 7) })),
  );
  await shot(page, "damaged");
  const status = await page.textContent("#status");
  return { status, ...(await answer(page)) };
}

async function cheating() {
  const page = await open(settings.served, {}, (page) =>
    page.route("**/golden/float32.bin", async (route) => {
      const body = await (await route.fetch()).body();
      body.writeFloatLE(body.readFloatLE(0) + 0.01, 0);
      await route.fulfill({ body });
    }),
  );
  return checked(page);
}

async function exported() {
  const page = await open(settings.exported);
  const isolated = await page.evaluate(() => self.crossOriginIsolated);
  return { isolated, ...(await classify(page, settings.pictures[0])), golden: await checked(page) };
}

const scenarios = { light, fitted, narrow, keyboard, dropped, exported, damaged, cheating };
const seen = {};
for (const [name, play] of Object.entries(scenarios)) {
  const quietly = name === "damaged"; // there the runtime has something to complain about
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
