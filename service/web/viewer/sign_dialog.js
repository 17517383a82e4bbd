// The dialog in which a review is signed, with what limits it.

import { TEXT_LENGTH } from "./contract.js";
import { askFor } from "./dialog.js";
import { number, plural } from "./format.js";
import { keepReviewer, NAME_INPUT, reviewerName } from "./reviewer.js";

const ORGANIZATION_KEY = "mitosis-organization"; // of the browser's storage

/**
 * Ask for a signature, and sign. `words` say what is signed and what limits it; `undecided` is how many figures nobody
 * has decided on; `ordered`: whether the result goes out for an order. Resolves with null where cancelled.
 */
export function askToSign(review, { words, undecided, ordered }) {
  const organization = {
    maxlength: String(TEXT_LENGTH),
    autocomplete: "organization",
    value: localStorage.getItem(ORGANIZATION_KEY) ?? "",
  };
  const patient = { maxlength: String(TEXT_LENGTH), autocomplete: "off", required: ordered };
  const total = review.figures.length;
  const tick = `I sign ${number(undecided)} of ${plural(total, "figure")} that nobody has decided on, as the machine found them.`;
  return askFor({
    title: "Sign this review",
    words: [
      ...words,
      "With your name the result becomes final, and is sent to the systems that wait for it. " +
        "Later changes need another signature.",
    ],
    fields: [
      { name: "reviewer", label: "Name", properties: { ...NAME_INPUT, value: reviewerName() ?? "" } },
      { name: "organization", label: "Organisation (optional)", properties: organization },
      {
        name: "patient",
        label: `Patient's number, from your own papers${ordered ? "" : " (optional)"}`,
        properties: patient,
      },
      ...(undecided ? [{ name: "undecided", label: tick, properties: { type: "checkbox", required: true } }] : []),
    ],
    yes: "Sign",
    act: async (values) => {
      await review.sign(values);
      keepReviewer(values.reviewer);
      localStorage.setItem(ORGANIZATION_KEY, values.organization);
    },
  });
}
