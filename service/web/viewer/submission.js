// Asking for an analysis.

import { call } from "./api.js";

/** Queue an analysis of a slide with values as the API takes them; resolves with the analysis. */
export async function submitAnalysis(slideId, values) {
  const headers = { "Idempotency-Key": [...crypto.getRandomValues(new Uint8Array(16))].join("-") };
  const json = { slide_id: slideId, ...values };
  return (await call("v1/analyses", { method: "POST", json, headers })).json();
}
