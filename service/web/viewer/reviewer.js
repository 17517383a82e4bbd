// The person who decides and signs: a name, asked for once in this browser.

import { TEXT_LENGTH } from "./contract.js";

const NAME_KEY = "mitosis-reviewer"; // of the browser's storage
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
  const { askFor } = await import("./dialog.js");
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
