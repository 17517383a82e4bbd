// The person who decides and signs: a name, asked for once in this browser.

import { TEXT_LENGTH } from "./contract.js";
import { askFor } from "./dialog.js";

const [NAME_KEY, ORGANIZATION_KEY] = ["mitosis-reviewer", "mitosis-organization"]; // of the browser's storage
const NAME_INPUT = {
  required: true,
  maxlength: String(TEXT_LENGTH),
  autocomplete: "name",
  placeholder: "Family, Given",
};

/** The reviewer's name, or null where it was not given yet. */
export const reviewerName = () => localStorage.getItem(NAME_KEY);

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
  localStorage.setItem(NAME_KEY, values.reviewer);
  return values.reviewer;
}

/** Ask for a signature, and sign. `counted` says in words what is signed. Resolves with null where cancelled. */
export function askToSign(review, counted) {
  const organization = {
    maxlength: String(TEXT_LENGTH),
    autocomplete: "organization",
    value: localStorage.getItem(ORGANIZATION_KEY) ?? "",
  };
  return askFor({
    title: "Sign this review",
    words: [
      counted,
      "With your name the result becomes final, and is sent to the systems that wait for it. " +
        "Later changes need another signature.",
    ],
    fields: [
      { name: "reviewer", label: "Name", properties: { ...NAME_INPUT, value: reviewerName() ?? "" } },
      { name: "organization", label: "Organisation (optional)", properties: organization },
    ],
    yes: "Sign",
    act: async (values) => {
      await review.sign(values.reviewer, values.organization);
      localStorage.setItem(NAME_KEY, values.reviewer);
      localStorage.setItem(ORGANIZATION_KEY, values.organization);
    },
  });
}
