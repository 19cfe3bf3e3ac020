import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";

// The builds that loadLiteRt chooses from: with threads, without, and for browsers that lack
// relaxed SIMD. It finds them by name at run time, out of the bundler's sight.
const BUILDS = ["litert_wasm_threaded_internal", "litert_wasm_internal", "litert_wasm_compat_internal"];
const FOLDER = fileURLToPath(new URL("node_modules/@litertjs/core/wasm/", import.meta.url));

function litertWasm(): Plugin {
  return {
    name: "litert-wasm",
    generateBundle() {
      for (const file of BUILDS.flatMap((build) => [`${build}.js`, `${build}.wasm`])) {
        this.emitFile({ type: "asset", fileName: `wasm/${file}`, source: readFileSync(FOLDER + file) });
      }
    },
  };
}

export default defineConfig({
  base: "./", // an exported page may lie in any folder of a host
  plugins: [litertWasm()],
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
});
