// The person who decides and signs: a name, asked for once in this browser.

import { TEXT_LENGTH } from "./contract.js";
import { askFor } from "./dialog.js";
import { number, plural } from "./format.js";

const [NAME_KEY, ORGANIZATION_KEY] = ["mitosis-reviewer", "mitosis-organization"]; // of the browser's storage
export const NAME_INPUT = {
  required: true,
  maxlength: String(TEXT_LENGTH),
  autocomplete: "name",
  placeholder: "Family, Given",
};

/** The reviewer's name, or null where it was not given yet. */
export const reviewerName = () => localStorage.getItem(NAME_KEY);

export const keepReviewer = (name) => localStorage.setItem(NAME_KEY, name);

/** The reviewer's name, asked for where it is not known; null where the dialog was cancelled. */
export async function requireReviewer() {
  if (reviewerName()) return reviewerName();
  const values = await askFor({
    title: "Who reviews?",
    words: ["Your name is recorded with each of your decisions. It is kept in this browser."],
    fields: [{ name: "reviewer", label: "Name", properties: NAME_INPUT }],
    yes: "Begin",
  });
  if (!values) return null;
  keepReviewer(values.reviewer);
  return values.reviewer;
}

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
