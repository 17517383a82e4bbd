// Requests to the service. Addresses are relative to the page, and no key is ever in one: the session is a cookie.

import { Problem } from "./problems.js";

/** Tells `lost` and `back` (the service does not answer, answers again), `signed-out` (401). */
export const connection = new EventTarget();
let lost = false;

export async function call(path, { method = "GET", json, headers = {}, body, signal } = {}) {
  const given = { method, headers: { ...headers }, signal, credentials: "same-origin", cache: "no-store" };
  if (json !== undefined) {
    given.body = JSON.stringify(json);
    given.headers["Content-Type"] = "application/json";
  } else if (body !== undefined) given.body = body;
  let answer;
  try {
    answer = await fetch(path, given);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
  if (answer.status === 502 || answer.status === 504) throw unreachable();
  found();
  if (answer.ok) return answer;
  const members = await answer.json().catch(() => ({ detail: `${answer.status} ${answer.statusText}` }));
  if (answer.status === 401) connection.dispatchEvent(new Event("signed-out"));
  throw new Problem(answer.status, members);
}

export const get = async (path, options) => (await call(path, options)).json();

function unreachable() {
  if (!lost) {
    lost = true;
    connection.dispatchEvent(new Event("lost"));
    setTimeout(knock, 1000);
  }
  return new Problem(0, { code: "server-unreachable", detail: "the service does not answer" });
}

/** Somebody else noticed that the service does not answer. */
export const noticeLoss = () => void unreachable();

async function knock() {
  try {
    if ((await fetch("healthz", { cache: "no-store" })).ok) return found();
  } catch {
    // still away
  }
  setTimeout(knock, 1500);
}

function found() {
  if (!lost) return;
  lost = false;
  connection.dispatchEvent(new Event("back"));
}
