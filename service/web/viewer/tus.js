// A resumable upload (tus 1.0): it goes on after a lost connection, a restart of the service, a new sign-in, and when
// the same file is dropped again after the page was closed.

import { call, connection, noticeLoss } from "./api.js";
import { Problem } from "./problems.js";

const PIECE = 16 * 2 ** 20; // bytes; progress is told within a piece, too
const TUS = { "Tus-Resumable": "1.0.0" };

/** Upload a file; gives the slide's id. `onProgress(bytes)`, `onState("sending" | "waiting" | "checking")`. */
export async function upload(file, { onProgress, onState, signal }) {
  const memory = `mitosis-upload:${file.name}|${file.size}|${file.lastModified}`;
  for (;;) {
    try {
      const slide = await attempt(file, memory, { onProgress, onState, signal });
      localStorage.removeItem(memory);
      return slide;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      onState("waiting");
      if (problem.code === "server-unreachable") await next("back", signal);
      else if (problem.status === 401) await next("signed-in", signal);
      else if (problem.status === 409) await pause(1000, signal);
      else if ([408, 429, 503].includes(problem.status))
        await pause(1000 * (problem.members.retry_after_s ?? 5), signal);
      else if (problem.status === 404) localStorage.removeItem(memory);
      else {
        localStorage.removeItem(memory);
        throw problem;
      }
    }
  }
}

/** Give an upload up, on both sides. */
export function forget(file) {
  const memory = `mitosis-upload:${file.name}|${file.size}|${file.lastModified}`;
  const address = localStorage.getItem(memory);
  localStorage.removeItem(memory);
  if (address) call(address, { method: "DELETE", headers: TUS }).catch(() => {});
}

async function attempt(file, memory, { onProgress, onState, signal }) {
  let address = localStorage.getItem(memory);
  let offset = 0;
  if (address) {
    const answer = await call(address, { method: "HEAD", headers: TUS, signal });
    if (answer.headers.get("Slide-Id")) return answer.headers.get("Slide-Id");
    offset = Number(answer.headers.get("Upload-Offset"));
  } else {
    const name = btoa(String.fromCharCode(...new TextEncoder().encode(file.name)));
    const headers = { ...TUS, "Upload-Length": String(file.size), "Upload-Metadata": `filename ${name}` };
    const answer = await call("v1/uploads", { method: "POST", headers, signal });
    address = answer.headers.get("Location").replace(/^\//, "");
    localStorage.setItem(memory, address);
    if (answer.headers.get("Slide-Id")) return answer.headers.get("Slide-Id");
  }
  for (;;) {
    onProgress(offset);
    onState("sending");
    const piece = file.slice(offset, offset + PIECE);
    const sent = await send(address, piece, offset, signal, (loaded) => {
      onProgress(offset + loaded);
      if (offset + loaded >= file.size) onState("checking");
    });
    offset = sent.offset;
    if (sent.slide) return sent.slide;
  }
}

/** One PATCH. fetch does not tell how much of a body has gone, XMLHttpRequest does. */
function send(address, piece, offset, signal, onLoaded) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PATCH", address);
    const headers = { ...TUS, "Upload-Offset": offset, "Content-Type": "application/offset+octet-stream" };
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => onLoaded(event.loaded);
    const stop = () => request.abort();
    signal.addEventListener("abort", stop, { once: true });
    request.onloadend = () => signal.removeEventListener("abort", stop);
    request.onabort = () => reject(new DOMException("given up", "AbortError"));
    request.onerror = () => {
      noticeLoss();
      reject(new Problem(0, { code: "server-unreachable" }));
    };
    request.onload = () => {
      if (request.status < 300) {
        resolve({
          offset: Number(request.getResponseHeader("Upload-Offset")),
          slide: request.getResponseHeader("Slide-Id"),
        });
        return;
      }
      if (request.status === 401) connection.dispatchEvent(new Event("signed-out"));
      let members = {};
      try {
        members = JSON.parse(request.responseText);
      } catch {
        members = { detail: `${request.status} ${request.statusText}` };
      }
      reject(new Problem(request.status, members));
    };
    request.send(piece);
  });
}

function next(event, signal) {
  return new Promise((resolve, reject) => {
    connection.addEventListener(event, resolve, { once: true });
    signal.addEventListener("abort", () => reject(new DOMException("given up", "AbortError")), { once: true });
  });
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    setTimeout(resolve, ms);
    signal.addEventListener("abort", () => reject(new DOMException("given up", "AbortError")), { once: true });
  });
}
