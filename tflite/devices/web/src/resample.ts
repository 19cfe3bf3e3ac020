// Antialiased resampling, the same as tf.image.resize(antialias=True), which Python's
// keras_resnet.preprocessing.fit_image comes to: half-pixel centres, and a kernel that widens with
// the scale wherever the picture shrinks.

import { roundHalfEven } from "./contract";

/** Pixels in rows, channels innermost, 0–255. */
export interface Pixels {
  readonly data: Uint8Array;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
}

interface Kernel {
  readonly radius: number;
  weight(distance: number): number;
}

const KERNELS: Readonly<Record<"bilinear" | "bicubic", Kernel>> = {
  bilinear: { radius: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  // Keys, "Cubic convolution interpolation for digital image processing", 1981: a = -1/2.
  bicubic: {
    radius: 2,
    weight(distance) {
      const x = Math.abs(distance);
      if (x >= 2) return 0;
      return x >= 1 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : (1.5 * x - 2.5) * x * x + 1;
    },
  },
};

/** Which source pixels make one target pixel, and how much each counts. */
interface Span {
  readonly start: number;
  readonly weights: Float32Array;
}

export function resize(
  image: Pixels,
  height: number,
  width: number,
  interpolation: "bilinear" | "bicubic",
): Pixels {
  const { channels } = image;
  if (image.height === height && image.width === width) return image;
  const kernel = KERNELS[interpolation];
  const down = resampleRows(image.data, image.width * channels, spans(image.height, height, kernel));
  const data = resampleColumns(down, height, image.width, channels, spans(image.width, width, kernel));
  return { data: Uint8Array.from(data, toByte), height, width, channels };
}

function toByte(value: number): number {
  return Math.min(255, Math.max(0, roundHalfEven(value)));
}

function spans(from: number, to: number, kernel: Kernel): Span[] {
  // TensorFlow keeps the scale in float32.
  const inverse = Math.fround(1 / Math.fround(to / from));
  const stretch = Math.max(inverse, 1);
  return Array.from({ length: to }, (_, target) => {
    const centre = (target + 0.5) * inverse;
    const start = Math.max(0, Math.ceil(centre - kernel.radius * stretch - 0.5));
    const end = Math.min(from - 1, Math.floor(centre + kernel.radius * stretch - 0.5));
    const weights = new Float32Array(end - start + 1);
    for (let i = 0; i < weights.length; i++) weights[i] = kernel.weight((start + i + 0.5 - centre) / stretch);
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { start, weights: weights.map((weight) => weight / total) };
  });
}

function resampleRows(data: Uint8Array, stride: number, rows: readonly Span[]): Float32Array {
  const out = new Float32Array(rows.length * stride);
  rows.forEach(({ start, weights }, row) => {
    weights.forEach((weight, i) => {
      const source = (start + i) * stride;
      for (let x = 0; x < stride; x++) out[row * stride + x] += weight * data[source + x];
    });
  });
  return out;
}

function resampleColumns(
  data: Float32Array,
  height: number,
  width: number,
  channels: number,
  columns: readonly Span[],
): Float32Array {
  const out = new Float32Array(height * columns.length * channels);
  let target = 0;
  for (let row = 0; row < height; row++) {
    for (const { start, weights } of columns) {
      for (let channel = 0; channel < channels; channel++) {
        const source = (row * width + start) * channels + channel;
        let sum = 0;
        for (let i = 0; i < weights.length; i++) sum += weights[i] * data[source + i * channels];
        out[target++] = sum;
      }
    }
  }
  return out;
}
