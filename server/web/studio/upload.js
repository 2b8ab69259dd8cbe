/** Pictures from outside: dropped, pasted or chosen, and brought to the size that a model paints. */

export const KINDS = ["image/png", "image/webp", "image/jpeg"];

/** The first picture of a drop or a paste; null if there is none. */
export function pictureIn(transfer) {
  return [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/")) ?? null;
}

/** Throws an Error whose message is a sentence. */
export async function openPicture(blob) {
  try {
    return await createImageBitmap(blob);
  } catch {
    throw new Error("This file is no picture that the browser can read.");
  }
}

/** Cut to the model's shape from the middle, and scaled to its size. */
export function covering(bitmap, width, height) {
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  const [across, down] = [width / scale, height / scale];
  return drawn(bitmap, width, height, [(bitmap.width - across) / 2, (bitmap.height - down) / 2, across, down]);
}

/** As it is if it fits, else scaled until it does. */
export function fitting(bitmap, width, height) {
  const scale = Math.min(1, width / bitmap.width, height / bitmap.height);
  const size = [Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale))];
  return drawn(bitmap, ...size, [0, 0, bitmap.width, bitmap.height]);
}

export async function toBase64(canvas) {
  const bytes = new Uint8Array(await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer());
  let text = "";
  for (let start = 0; start < bytes.length; start += 8192) text += String.fromCharCode(...bytes.subarray(start, start + 8192));
  return btoa(text);
}

/** Opaque: the server takes transparency for a mask. */
function drawn(bitmap, width, height, source) {
  const canvas = new OffscreenCanvas(width, height);
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, width, height);
  pen.imageSmoothingEnabled = source[2] !== width || source[3] !== height;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, ...source, 0, 0, width, height);
  return canvas;
}
