// Reads pictures with the page's own modules in headless Chromium, and prints what came out as one JSON object.
// node drive_pixels.mjs SETTINGS.json; test_pixels.py has the expectations.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const settings = JSON.parse(readFileSync(process.argv[2], "utf8"));
const fromWeb = createRequire(path.join(settings.web, "package.json"));
const { chromium } = fromWeb("playwright-core");
const { build } = fromWeb("esbuild");

const { outputFiles } = await build({
  stdin: {
    contents: 'export { decode } from "./decode"; export { fit } from "./picture";',
    resolveDir: path.join(settings.web, "src"),
  },
  bundle: true,
  format: "iife",
  globalName: "page",
  write: false,
});

const browser = await chromium.launch({
  executablePath: settings.chromium,
  args: ["--no-sandbox", "--disable-quic", "--disable-gpu", "--disable-background-networking"],
});

/** A page of the loopback address, which browsers count as secure: some decoders need that. */
async function blank(removed) {
  const page = await browser.newPage();
  await page.route("**/*", (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html>" }));
  if (removed.includes("ImageDecoder")) await page.addInitScript(() => delete self.ImageDecoder);
  if (removed.includes("WebGL")) {
    await page.addInitScript(() => {
      const { getContext } = OffscreenCanvas.prototype;
      OffscreenCanvas.prototype.getContext = function (kind, ...more) {
        return kind === "webgl2" ? null : getContext.call(this, kind, ...more);
      };
    });
  }
  await page.goto("http://127.0.0.1/");
  await page.evaluate(outputFiles[0].text + "; self.page = page;");
  return page;
}

/** In the page: what the model would see of a file, or the words of the refusal. */
async function read([base64, name, contract]) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  let picture;
  try {
    picture = await self.page.decode(new File([bytes], name), name);
    const { data, height, width } = await self.page.fit(picture, contract);
    let binary = "";
    for (const byte of data) binary += String.fromCharCode(byte);
    return { pixels: btoa(binary), size: [height, width], error: "" };
  } catch (error) {
    return { pixels: "", size: [0, 0], error: error.message };
  } finally {
    picture?.close();
  }
}

const seen = [];
for (const { removed, files } of settings.pages) {
  const page = await blank(removed);
  for (const { file, name, contract } of files) {
    seen.push(await page.evaluate(read, [readFileSync(file).toString("base64"), name, contract]));
  }
  await page.close();
}
await browser.close();
console.log(JSON.stringify(seen));
