// The result as files, in every format.

import { call } from "./api.js";
import { fill, h } from "./dom.js";
import { advice } from "./problems.js";

const FORMATS = [
  ["json", "JSON", "report.json", "The whole report"],
  ["geojson", "GeoJSON", "geojson", "For QuPath"],
  ["csv", "CSV", "csv", "For a spreadsheet"],
  ["fhir", "FHIR", "fhir.json", "R4 bundle: report and observations"],
  ["hl7", "HL7", "hl7", "v2 message ORU^R01"],
  ["dicom", "DICOM", "zip", "Annotations and structured report"],
];

export function exportButtons(analysisId, slideName) {
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const stem = slideName.replace(/\.[^.]*$/, "");

  async function save(format, ending) {
    problem.hidden = true;
    try {
      const answer = await call(`v1/analyses/${analysisId}/result?format=${format}`);
      const told = /filename="?([^";]+)/.exec(answer.headers.get("Content-Disposition") ?? "");
      const address = URL.createObjectURL(await answer.blob());
      h("a", { href: address, download: told?.[1] ?? `${stem}.${ending}` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 60000);
    } catch (error) {
      fill(
        problem,
        error.status === 406 ? `This service does not give ${format.toUpperCase()}.` : advice(error.code),
        " ",
        h("span", { class: "quiet" }, error.message),
      );
      problem.hidden = false;
    }
  }

  const buttons = FORMATS.map(([format, name, ending, words]) =>
    h("button", { type: "button", title: words, dataset: { format }, onclick: () => save(format, ending) }, name),
  );
  return [h("div", { class: "exports", role: "group", "aria-label": "Export" }, buttons), problem];
}
