// One .tflite file on LiteRT.js: on WebGPU, or with XNNPACK in WebAssembly, with threads if the page is
// cross-origin isolated.

import {
  getWebGpuDevice,
  loadAndCompile,
  loadLiteRt,
  supportsFeature,
  Tensor,
  type CompiledModel,
} from "@litertjs/core";
import type { ModelFile } from "./contract";
import { Unreadable } from "./formats";
import type { Pixels } from "./resample";

const ENOUGH_RUNS = 5;
const ENOUGH_MILLISECONDS = 500;

export interface Model extends ModelFile {
  readonly compiled: CompiledModel;
  readonly runsOn: string;
  /** Why it does not run on WebGPU; empty if there is nothing to tell. */
  readonly note: string;
}

export interface Output {
  readonly probabilities: Float32Array;
  readonly milliseconds: number;
}

/** Returns whether threads are available. */
export async function startRuntime(): Promise<boolean> {
  const threads = self.crossOriginIsolated && (await supportsFeature("relaxedSimd"));
  try {
    await loadLiteRt("wasm/", { threads });
  } catch (error) {
    throw new Unreadable(`LiteRT did not start in this browser: ${reason(error)}`);
  }
  return threads;
}

export const hasGpu = (): boolean => getWebGpuDevice() !== null;

export async function compileOnCpu(entry: ModelFile, bytes: Uint8Array, threads: boolean): Promise<Model> {
  try {
    const compiled = await loadAndCompile(bytes, { accelerator: "wasm" });
    return { ...entry, compiled, runsOn: threads ? "CPU, threads" : "CPU, one thread", note: "" };
  } catch (error) {
    throw new Unreadable(`${entry.file} is damaged, or needs another runtime: ${reason(error)}`);
  }
}

/** Null if WebGPU does not support the whole model. */
export async function compileOnGpu(entry: ModelFile, bytes: Uint8Array): Promise<Model | null> {
  const compiled = await loadAndCompile(bytes, {
    accelerator: "webgpu",
    gpuOptions: { precision: "fp32" }, // half precision differs by more than a quantization step
  });
  if (compiled.isFullyAccelerated && compiled.options.accelerator === "webgpu") {
    return { ...entry, compiled, runsOn: "WebGPU", note: "" };
  }
  compiled.delete();
  return null;
}

export async function run(model: Model, pixels: Uint8Array): Promise<Float32Array> {
  const { height, width, channels } = model.contract;
  const input = new Tensor(Float32Array.from(pixels), [1, height, width, channels]);
  try {
    const outputs = await model.compiled.run([input]);
    const probabilities = Float32Array.from((await outputs[0].data()) as Float32Array);
    outputs.forEach((output) => output.delete());
    return probabilities;
  } finally {
    input.delete();
  }
}

/** The median time of a few runs, after a warm-up run. */
export async function timedRun(model: Model, image: Pixels): Promise<Output> {
  const probabilities = await run(model, image.data);
  const times: number[] = [];
  const began = performance.now();
  do {
    const start = performance.now();
    await run(model, image.data);
    times.push(performance.now() - start);
  } while (times.length < ENOUGH_RUNS && performance.now() - began < ENOUGH_MILLISECONDS);
  times.sort((a, b) => a - b);
  return { probabilities, milliseconds: times[Math.floor(times.length / 2)] };
}

export async function fetchBytes(url: string): Promise<Uint8Array> {
  let response: Response;
  try {
    response = await fetch(url);
  } catch {
    throw new Unreadable(`${url} cannot be fetched. Is keras-resnet demo still running?`);
  }
  if (!response.ok) throw new Unreadable(`${url} cannot be fetched: the server answers ${response.status}.`);
  return new Uint8Array(await response.arrayBuffer());
}

function reason(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0];
}
