// Requests to the service. Addresses are relative to the page, and none ever holds a key: the session is a cookie.

import { Problem } from "./problems.js";

const [FIRST_RETRY_MS, RETRY_MS] = [1000, 1500];

/** Events: `lost` and `back` (the service does not answer, answers again), `signed-out` (401) and `signed-in`. */
export const connection = new EventTarget();
let lost = false;

/** Send a request; resolves with the response, or throws a Problem where the service refuses or does not answer. */
export async function call(path, { method = "GET", json, headers = {}, body, signal } = {}) {
  const request = { method, headers: { ...headers }, body, signal, credentials: "same-origin", cache: "no-store" };
  if (json !== undefined) {
    request.body = JSON.stringify(json);
    request.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw reportConnectionLost();
  }
  if (response.status === 502 || response.status === 504) throw reportConnectionLost(); // by a proxy
  reportConnectionBack();
  if (response.ok) return response;
  const members = await response.json().catch(() => ({ detail: `${response.status} ${response.statusText}` }));
  if (response.status === 401) connection.dispatchEvent(new Event("signed-out"));
  throw new Problem(response.status, members);
}

/** GET an answer in JSON. */
export const get = async (path, options) => (await call(path, options)).json();

/** Tell the page, once, that the service does not answer, and ask until it does; returns the Problem to throw. */
export function reportConnectionLost() {
  if (!lost) {
    lost = true;
    connection.dispatchEvent(new Event("lost"));
    setTimeout(askAgain, FIRST_RETRY_MS);
  }
  return new Problem(0, { code: "server-unreachable", detail: "the service does not answer" });
}

/** Have something done when the service answers again, or access is given again; returns a function that ends it. */
export function whenBack(act) {
  const events = ["back", "signed-in"];
  for (const each of events) connection.addEventListener(each, act);
  return () => events.forEach((each) => connection.removeEventListener(each, act));
}

function reportConnectionBack() {
  if (!lost) return;
  lost = false;
  connection.dispatchEvent(new Event("back"));
}

async function askAgain() {
  const response = await fetch("healthz", { cache: "no-store" }).catch(() => null);
  if (response?.ok) reportConnectionBack();
  else setTimeout(askAgain, RETRY_MS);
}
