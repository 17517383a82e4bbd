// The fields of a new analysis. All may be left empty, except um per pixel where the slide does not say it.

import { call } from "./api.js";
import { TEXT_LENGTH } from "./contract.js";
import { h, newId } from "./dom.js";
import { number } from "./format.js";

/** Queue an analysis of a slide with values as the API takes them; resolves with the analysis. */
export async function submitAnalysis(slideId, values) {
  const headers = { "Idempotency-Key": [...crypto.getRandomValues(new Uint8Array(16))].join("-") };
  const json = { slide_id: slideId, ...values };
  return (await call("v1/analyses", { method: "POST", json, headers })).json();
}

/** `regionButton(input)` makes a button that fills in the region. */
export function createAnalysisForm(regionButton = null) {
  const [accession, accessionField] = labelled("Accession number", {
    maxlength: String(TEXT_LENGTH),
    placeholder: "optional",
  });
  const [mpp, mppField] = labelled("µm per pixel", { type: "number", step: "any", placeholder: "from the slide" });
  const [region, regionField] = labelled("Region: left, top, width, height in px", {
    pattern: "\\s*\\d+\\s*,\\s*\\d+\\s*,\\s*\\d+\\s*,\\s*\\d+\\s*",
    placeholder: "whole slide",
    title: "Four whole numbers, for example 10000, 8000, 6000, 6000",
  });
  if (regionButton) regionField.append(regionButton(region));
  const urgentId = newId("field");
  const urgent = h("input", { type: "checkbox", id: urgentId });
  const urgentField = h("div", { class: "field check" }, urgent, h("label", { for: urgentId }, "Urgent"));
  return {
    elements: [accessionField, mppField, regionField, urgentField],
    /** Say whether um per pixel has to be given; `known` is the slide's own (x, y), or null. */
    setSlideMpp(known) {
      mpp.required = !known;
      mpp.placeholder = known ? `${number(known[0], 3)} (from the slide)` : "needed";
    },
    /** The values as the API takes them. */
    read() {
      const values = { priority: urgent.checked ? "stat" : "routine" };
      if (mpp.value) values.mpp = Number(mpp.value);
      if (accession.value.trim()) values.order = { accession_number: accession.value.trim() };
      if (region.value.trim()) {
        const [x, y, width, height] = region.value.split(",").map(Number);
        values.region = { x, y, width, height };
      }
      return values;
    },
  };
}

function labelled(label, properties) {
  const id = newId("field");
  const input = h("input", { id, autocomplete: "off", ...properties });
  return [input, h("div", { class: "field" }, h("label", { for: id }, label), input)];
}
