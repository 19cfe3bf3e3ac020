// A photograph taken in the page. Browsers deliver upright frames, so that the contract's orientation does not
// matter: the file made of a frame has none.

import { Unreadable } from "./formats";

export const hasCamera = (): boolean => Boolean(navigator.mediaDevices?.getUserMedia);

/** The picture, or null if the dialog was cancelled. */
export async function photograph(dialog: HTMLDialogElement): Promise<Blob | null> {
  const video = dialog.querySelector("video") as HTMLVideoElement;
  let stream: MediaStream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    throw new Unreadable("There is no camera, or this page may not use it. Choose a picture instead.");
  }
  video.srcObject = stream;
  try {
    await video.play();
    dialog.returnValue = "";
    dialog.showModal();
    await new Promise((closed) => dialog.addEventListener("close", closed, { once: true }));
    return dialog.returnValue === "take" ? await frame(video) : null;
  } finally {
    stream.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  }
}

function frame(video: HTMLVideoElement): Promise<Blob> {
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d")?.drawImage(video, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}
