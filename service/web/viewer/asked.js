// What is asked of an analysis: everything may be left empty, but um per pixel where the slide does not say it.

import { call } from "./api.js";
import { h, newId } from "./dom.js";
import { number } from "./format.js";

/** Queue an analysis of a slide; gives it. */
export async function analyse(slideId, fields) {
  const headers = { "Idempotency-Key": [...crypto.getRandomValues(new Uint8Array(16))].join("-") };
  return (await call("v1/analyses", { method: "POST", json: { slide_id: slideId, ...fields.read() }, headers })).json();
}

/** The fields; `more` is put beside the region. */
export function asked(more = null) {
  const field = (label, properties) => {
    const id = newId("field");
    const input = h("input", { id, autocomplete: "off", ...properties });
    return [input, h("div", { class: "field" }, h("label", { for: id }, label), input)];
  };
  const [accession, accessionField] = field("Accession number", { maxlength: "255", placeholder: "optional" });
  const [mpp, mppField] = field("µm per pixel", {
    type: "number",
    min: "0.05",
    max: "20",
    step: "any",
    placeholder: "from the slide",
  });
  const [region, regionField] = field("Region: left, top, width, height in px", {
    pattern: "\\s*\\d+\\s*,\\s*\\d+\\s*,\\s*\\d+\\s*,\\s*\\d+\\s*",
    placeholder: "whole slide",
    title: "Four whole numbers, for example 10000, 8000, 6000, 6000",
  });
  const id = newId("field");
  const urgent = h("input", { type: "checkbox", id });
  const urgentField = h("div", { class: "field check" }, urgent, h("label", { for: id }, "Urgent"));
  if (more) regionField.append(more(region));
  return {
    mpp,
    elements: [accessionField, mppField, regionField, urgentField],
    /** Once it is known what the slide says of its um per pixel. */
    needMpp(known) {
      mpp.required = !known;
      mpp.placeholder = known ? `${number(known[0], 3)} (from the slide)` : "needed";
    },
    read() {
      const asked = { priority: urgent.checked ? "stat" : "routine" };
      if (mpp.value) asked.mpp = Number(mpp.value);
      if (accession.value.trim()) asked.order = { accession_number: accession.value.trim() };
      if (region.value.trim()) {
        const [x, y, width, height] = region.value.split(",").map(Number);
        asked.region = { x, y, width, height };
      }
      return asked;
    },
  };
}
