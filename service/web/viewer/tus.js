// A resumable upload (tus 1.0): it continues after a lost connection, a restart of the service, a new sign-in, and when
// the same file is dropped again after the page was closed.

import { call, connection, reportConnectionLost } from "./api.js";
import { TUS_VERSION } from "./contract.js";
import { Problem } from "./problems.js";

const PIECE_BYTES = 16 * 2 ** 20; // of one request; progress is told within a piece, too
const LOCKED_MS = 1000; // while another request still writes
const BUSY_S = 5; // where the service does not say how long to wait
const TUS = { "Tus-Resumable": TUS_VERSION };

/** Upload a file; resolves with the slide's id. `onProgress(bytes)`, `onState("sending" | "waiting" | "checking")`. */
export async function upload(file, { onProgress, onState, signal }) {
  for (;;) {
    try {
      const slideId = await tryUpload(file, { onProgress, onState, signal });
      localStorage.removeItem(storageKey(file));
      return slideId;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      onState("waiting");
      await waitAfter(problem, file, signal);
    }
  }
}

/** Give up an upload, here and in the service. */
export function abandonUpload(file) {
  const address = localStorage.getItem(storageKey(file));
  localStorage.removeItem(storageKey(file));
  if (address) call(address, { method: "DELETE", headers: TUS }).catch(() => {});
}

/** Where the browser keeps the address of a file's upload. */
const storageKey = (file) => `mitosis-upload:${file.name}|${file.size}|${file.lastModified}`;

/** Wait until another try may succeed; throws the problem where none will. */
async function waitAfter(problem, file, signal) {
  const { status, code, members } = problem;
  if (code === "server-unreachable") await nextEvent("back", signal);
  else if (status === 401) await nextEvent("signed-in", signal);
  else if (status === 409) await pause(LOCKED_MS, signal);
  else if ([408, 429, 503].includes(status)) await pause(1000 * (members.retry_after_s ?? BUSY_S), signal);
  else {
    localStorage.removeItem(storageKey(file));
    if (status !== 404) throw problem; // an upload that the service does not know any more begins anew
  }
}

async function tryUpload(file, { onProgress, onState, signal }) {
  const { address, ...begun } = await openUpload(file, signal);
  let { offset, slideId } = begun;
  while (!slideId) {
    onProgress(offset);
    onState("sending");
    const start = offset;
    const onLoaded = (bytes) => {
      onProgress(start + bytes);
      if (start + bytes >= file.size) onState("checking");
    };
    const piece = file.slice(start, start + PIECE_BYTES);
    ({ offset, slideId } = await sendPiece({ address, piece, offset: start, signal, onLoaded }));
  }
  return slideId;
}

/** Find the upload that was begun before, or begin one. */
async function openUpload(file, signal) {
  const known = localStorage.getItem(storageKey(file));
  if (known) {
    const { headers } = await call(known, { method: "HEAD", headers: TUS, signal });
    return { address: known, offset: Number(headers.get("Upload-Offset")), slideId: headers.get("Slide-Id") };
  }
  const name = btoa(String.fromCharCode(...new TextEncoder().encode(file.name)));
  const asked = { ...TUS, "Upload-Length": String(file.size), "Upload-Metadata": `filename ${name}` };
  const { headers } = await call("v1/uploads", { method: "POST", headers: asked, signal });
  const address = headers.get("Location").replace(/^\//, "");
  localStorage.setItem(storageKey(file), address);
  return { address, offset: 0, slideId: headers.get("Slide-Id") };
}

/** Send one PATCH. By XMLHttpRequest: fetch does not tell how much of a body has been sent. */
function sendPiece({ address, piece, offset, signal, onLoaded }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PATCH", address);
    const headers = { ...TUS, "Upload-Offset": offset, "Content-Type": "application/offset+octet-stream" };
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    const abort = () => request.abort();
    signal.addEventListener("abort", abort, { once: true });
    request.upload.addEventListener("progress", (event) => onLoaded(event.loaded));
    request.addEventListener("loadend", () => signal.removeEventListener("abort", abort));
    request.addEventListener("abort", () => reject(aborted()));
    request.addEventListener("error", () => reject(reportConnectionLost()));
    request.addEventListener("load", () => {
      if (request.status >= 300) {
        reject(problemOf(request));
        return;
      }
      const answered = Number(request.getResponseHeader("Upload-Offset"));
      resolve({ offset: answered, slideId: request.getResponseHeader("Slide-Id") });
    });
    request.send(piece);
  });
}

function problemOf(request) {
  if (request.status === 401) connection.dispatchEvent(new Event("signed-out"));
  try {
    return new Problem(request.status, JSON.parse(request.responseText));
  } catch {
    return new Problem(request.status, { detail: `${request.status} ${request.statusText}` });
  }
}

const aborted = () => new DOMException("given up", "AbortError");

/** Resolves with the connection's next event of a type. */
function nextEvent(type, signal) {
  return new Promise((resolve, reject) => {
    connection.addEventListener(type, resolve, { once: true });
    signal.addEventListener("abort", () => reject(aborted()), { once: true });
  });
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    setTimeout(resolve, ms);
    signal.addEventListener("abort", () => reject(aborted()), { once: true });
  });
}
