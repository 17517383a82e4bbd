// The result as files, in every format.

import { call } from "./api.js";
import { FORMATS } from "./contract.js";
import { fill, h } from "./dom.js";
import { advice } from "./problems.js";

const SAVED_MS = 60000; // after which the browser has read the file

/** Buttons that save the result of an analysis, and a place for what goes wrong. */
export function createExportButtons(analysisId, slideName) {
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const stem = slideName.replace(/\.[^.]*$/, "");

  async function save(format, name, ending) {
    problem.hidden = true;
    try {
      const response = await call(`v1/analyses/${analysisId}/result?format=${format}`);
      const named = /filename="?([^";]+)/.exec(response.headers.get("Content-Disposition") ?? "");
      const address = URL.createObjectURL(await response.blob());
      h("a", { href: address, download: named?.[1] ?? `${stem}.${ending}` }).click();
      setTimeout(() => URL.revokeObjectURL(address), SAVED_MS);
    } catch (error) {
      const text = error.status === 406 ? `This result cannot be had as ${name}.` : advice(error.code);
      fill(problem, text, " ", h("span", { class: "quiet" }, error.message));
      problem.hidden = false;
    }
  }

  const buttons = Object.entries(FORMATS).map(([format, [name, ending, purpose]]) =>
    h(
      "button",
      { type: "button", title: purpose, dataset: { format }, onclick: () => save(format, name, ending) },
      name,
    ),
  );
  return [h("div", { class: "exports", role: "group", "aria-label": "Export" }, buttons), problem];
}
