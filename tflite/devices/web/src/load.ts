// Each file runs on WebGPU if its outputs are the same there, otherwise on the CPU.

import { unloadLiteRt } from "@litertjs/core";
import type { Demo, GoldenFiles, ModelFile } from "./contract";
import { check, passes, steps } from "./golden";
import { Unreadable } from "./formats";
import { compileOnCpu, compileOnGpu, fetchBytes, hasGpu, startRuntime, type Model } from "./runtime";
import { size } from "./view";

type Compile = (entry: ModelFile, bytes: Uint8Array) => Promise<Model>;

export async function loadModels(demo: Demo, say: (message: string) => void): Promise<Model[]> {
  const threads = await startRuntime();
  const onCpu: Compile = (entry, bytes) => compileOnCpu(entry, bytes, threads);
  const load = async (compile: Compile): Promise<Model[]> => {
    const models: Model[] = [];
    for (const entry of demo.models) {
      say(`Loading ${entry.kind}, ${size(entry.bytes)} …`);
      models.push(await compile(entry, await fetchBytes(entry.file)));
    }
    return models;
  };
  if (!hasGpu()) return load(onCpu);
  try {
    return await load((entry, bytes) => onGpuIfSame(entry, bytes, demo.golden, onCpu));
  } catch (error) {
    if (error instanceof Unreadable) throw error;
    console.warn("WebGPU failed, so everything runs on the CPU:", error);
    // The failure may have left the runtime in an undefined state.
    unloadLiteRt();
    await startRuntime();
    return load(onCpu);
  }
}

/** WebGPU computes quantized operations in floats; the golden inputs tell whether the outputs are the same. */
async function onGpuIfSame(
  entry: ModelFile,
  bytes: Uint8Array,
  golden: GoldenFiles,
  onCpu: Compile,
): Promise<Model> {
  const model = await compileOnGpu(entry, bytes);
  if (!model) return onCpu(entry, bytes);
  const checked = await check(model, golden);
  if (passes(checked)) return model;
  model.compiled.delete();
  const difference = steps(checked.largestDifference);
  const note = `On WebGPU ${entry.kind} differs from Python by ${difference}, so it runs on the CPU.`;
  return { ...(await onCpu(entry, bytes)), note };
}
