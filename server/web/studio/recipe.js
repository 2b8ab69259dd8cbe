/** The request that makes a picture again: as JSON, as a command, and read back from a file. */

import { addressOf, parseJson } from "./api.js";
import { key } from "./key.js";

const OF_EVERY_REQUEST = ["model", "prompt", "seed"];
const KEYWORD = "oar"; // of a PNG's text chunk
const SIGNATURE = 8; // bytes

/** The body of the request that makes this picture again; of an edit, the part beside its picture. */
export function recipe(job, index) {
  const names = new Set([...OF_EVERY_REQUEST, ...job.model.options.map(({ name }) => name)]);
  const entries = Object.entries(job.params).filter(([name, value]) => names.has(name) && value !== null);
  const { edit } = job.params;
  const extras = edit?.mode === "vary" ? { strength: edit.strength } : {};
  return { ...Object.fromEntries(entries), ...(index ? { n: index + 1 } : {}), ...extras };
}

/** A line for each field; an order's positions stay in theirs. */
export function recipeText(job, index) {
  const lines = Object.entries(recipe(job, index)).map(([name, value]) => {
    const text = Array.isArray(value) ? `[${value.join(", ")}]` : JSON.stringify(value);
    return `  "${name}": ${name === "seed" ? text.replaceAll('"', "") : text}`;
  });
  return `{\n${lines.join(",\n")}\n}`;
}

/** For a POSIX shell. The key is named and not told: a command is pasted into places. */
export function curlText(job, index) {
  const body = recipeText(job, index).replaceAll("'", "'\\''");
  const header = key() ? ' \\\n  -H "Authorization: Bearer $OAR_API_KEY"' : "";
  return `curl '${addressOf("v1/generations").href}' -H 'Content-Type: application/json'${header} \\\n  -d '${body}'`;
}

/** What a PNG of a server says of itself, or a file of JSON; null for any other file. */
export async function readRecipe(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const text = file.type === "application/json" ? new TextDecoder().decode(bytes) : textChunk(bytes);
  try {
    const params = parseJson(text);
    return typeof params?.prompt === "string" ? { ...params, n: params.n ?? (params.image ?? 0) + 1 } : null;
  } catch {
    return null; // no JSON, so none of ours
  }
}

/** PNG: after the signature, chunks of length (4 bytes), type (4), content and checksum (4). */
function textChunk(bytes) {
  const view = new DataView(bytes.buffer);
  for (let start = SIGNATURE; start + 12 <= bytes.length; start += 12 + view.getUint32(start)) {
    const [head, end] = [start + 8, start + 8 + view.getUint32(start)];
    const isText = String.fromCharCode(...bytes.subarray(start + 4, head)) === "tEXt";
    const words = isText ? new TextDecoder("latin1").decode(bytes.subarray(head, end)) : "";
    if (words.startsWith(`${KEYWORD}\0`)) return words.slice(KEYWORD.length + 1);
  }
  return "";
}
