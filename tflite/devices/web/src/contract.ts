// demo.json, which describes the run; the contracts are those inside the .tflite files.

export interface Contract {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly labels: readonly string[];
  readonly resize: "crop" | "stretch";
  readonly crop_fraction: number;
  readonly interpolation: "bilinear" | "bicubic";
  /** "ignore": pixels as they are stored, not turned upright by EXIF. */
  readonly orientation: "apply" | "ignore";
  readonly task: "single" | "binary" | "multi";
  /** From which probability on the label of an output is given; 0.5 where there is none. */
  readonly thresholds: readonly number[];
}

export interface ModelFile {
  readonly kind: string;
  readonly file: string;
  readonly bytes: number;
  readonly contract: Contract;
  /** Shown if the outputs differ from Python's; empty for most kinds. */
  readonly remark: string;
}

/** Raw bytes: images uint8 (count, height, width, channels), outputs float32 (count, classes). */
export interface GoldenFiles {
  readonly count: number;
  /** What the images are, in words. */
  readonly of: string;
  readonly images: string;
  readonly answers: Readonly<Record<string, string>>;
}

export interface Demo {
  readonly name: string;
  readonly models: readonly ModelFile[];
  readonly golden: GoldenFiles;
}

export interface Box {
  readonly top: number;
  readonly left: number;
  readonly height: number;
  readonly width: number;
}

/** The part of a picture that the model should see; keras_resnet.contract.crop_box in Python. */
export function cropBox(height: number, width: number, contract: Contract): Box {
  if (contract.resize === "stretch") return { top: 0, left: 0, height, width };
  const perMille = roundHalfEven(contract.crop_fraction * 1000);
  const kept = (size: number) => Math.max(1, Math.floor((size * perMille) / 1000));
  const fitsHeight = Math.floor((width * contract.height) / contract.width);
  const fitsWidth = Math.floor((height * contract.width) / contract.height);
  const boxHeight = kept(Math.min(height, fitsHeight));
  const boxWidth = kept(Math.min(width, fitsWidth));
  return {
    top: Math.floor((height - boxHeight) / 2),
    left: Math.floor((width - boxWidth) / 2),
    height: boxHeight,
    width: boxWidth,
  };
}

/** As Python's round and NumPy's rint. */
export function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  const over = value - below;
  if (over !== 0.5) return over < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

/** The name of a class, or its number. */
export function label(contract: Contract, index: number): string {
  return contract.labels[index] ?? String(index);
}
