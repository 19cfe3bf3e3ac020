// Stored colours of a picture whose transparency cannot be taken out of its file (lossless WebP). A 2D canvas
// stores colours multiplied by alpha, so that they lose bits where a picture is translucent, and everything
// where it is transparent.

import type { Box } from "./contract";

/** Rows of red, green, blue and alpha; null where the browser has no way to tell them. */
export async function translucentPixels(file: Blob, bitmap: ImageBitmap, box: Box): Promise<Uint8Array | null> {
  return (await fromDecoder(file, box)) ?? fromTexture(bitmap, box);
}

/** By WebCodecs; null where the browser lacks it, or it does not know the format. */
async function fromDecoder(file: Blob, box: Box): Promise<Uint8Array | null> {
  if (!("ImageDecoder" in self) || !(await ImageDecoder.isTypeSupported(file.type))) return null;
  const decoder = new ImageDecoder({
    data: await file.arrayBuffer(),
    type: file.type,
    colorSpaceConversion: "none",
  });
  try {
    const { image } = await decoder.decode();
    try {
      const rect = { x: box.left, y: box.top, width: box.width, height: box.height };
      const order = { RGBA: [0, 1, 2, 3], BGRA: [2, 1, 0, 3] }[String(image.format)];
      if (!order) return null;
      const stored = new Uint8Array(image.allocationSize({ rect }));
      await image.copyTo(stored, { rect, layout: [{ offset: 0, stride: 4 * box.width }] });
      return stored.map((_, i) => stored[i - (i % 4) + order[i % 4]]);
    } finally {
      image.close();
    }
  } catch {
    return null;
  } finally {
    decoder.close();
  }
}

/** By WebGL, whose textures hold colours as they are; null where the browser lacks it. */
function fromTexture(bitmap: ImageBitmap, box: Box): Uint8Array | null {
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  if (!gl) return null;
  try {
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
    gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    const rgba = new Uint8Array(4 * box.width * box.height);
    gl.readPixels(box.left, box.top, box.width, box.height, gl.RGBA, gl.UNSIGNED_BYTE, rgba);
    return gl.getError() === gl.NO_ERROR ? rgba : null; // an error where the picture is too large
  } finally {
    gl.getExtension("WEBGL_lose_context")?.loseContext(); // browsers keep a few contexts alive only
  }
}
