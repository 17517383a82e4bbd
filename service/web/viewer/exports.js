// The result as files, in every format.

import { call } from "./api.js";
import { FORMATS } from "./contract.js";
import { fill, h } from "./dom.js";
import { advice } from "./problems.js";

const SAVED_MS = 60000; // after which the browser has read the file

const NAMES_A_PATIENT = ["fhir", "hl7", "dicom", "pdf", "dicom-map", "dicom-area"]; // these wait while it is not clear who that is

/** Why a format cannot be had, as far as it is known beforehand; null where it may be. */
function whyNot(format, analysis, report) {
  if (analysis.held && NAMES_A_PATIENT.includes(format)) return "this result is held";
  if (format === "hl7" && !analysis.request.order) return "there is no order";
  if (format.startsWith("dicom") && report.slide.vendor !== "dicom") return "the slide is no DICOM";
  return null;
}

/** Buttons that save the result of an analysis, why some cannot, and a place for what goes wrong. */
export function createExportButtons(analysis, report) {
  const [analysisId, slideName] = [analysis.id, report.slide.name];
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

  const reasons = Object.keys(FORMATS).map((format) => [FORMATS[format][0], whyNot(format, analysis, report)]);
  const buttons = Object.entries(FORMATS).map(([format, [name, ending, purpose]]) =>
    h(
      "button",
      {
        type: "button",
        title: purpose,
        dataset: { format },
        disabled: whyNot(format, analysis, report) !== null,
        onclick: () => save(format, name, ending),
      },
      name,
    ),
  );
  const namesOf = (why) => reasons.filter(([, reason]) => reason === why).map(([name]) => name);
  const words = [...new Set(reasons.map(([, reason]) => reason))]
    .filter(Boolean)
    .map((why) => `${namesOf(why).join(", ")}: ${why}.`);
  return [
    h("div", { class: "exports", role: "group", "aria-label": "Export" }, buttons),
    words.length ? h("p", { class: "quiet" }, words.join(" ")) : null,
    problem,
  ];
}
