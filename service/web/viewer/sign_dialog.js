// The dialog in which a review is signed, with what limits it.

import { TEXT_LENGTH } from "./contract.js";
import { grownWords, undecided, windowWords } from "./counted_words.js";
import { askFor } from "./dialog.js";
import { number, plural } from "./format.js";
import { keepReviewer, NAME_INPUT, reviewerName } from "./reviewer.js";

const CHANGED = "Somebody has changed this review since this was shown. Cancel, look at it, and sign then.";
const ORGANIZATION_KEY = "mitosis-organization"; // of the browser's storage

/**
 * Ask for a signature of the review as it stands, with what limits it, and sign. `ordered`: whether the result goes out
 * for an order. Resolves with null where cancelled.
 */
export function askToSign(review, report, ordered) {
  const { mai, counts, revision, second_reading: reading } = review.server;
  const mitoses = plural(counts.total, "mitosis", "mitoses");
  const words = [
    `${mitoses}, MAI ${number(mai.count)} in ${windowWords(mai)}${mai.area_sufficient ? "" : ": no class"}.`,
    grownWords(mai),
    report.warnings.length ? `Warnings: ${report.warnings.map(({ message }) => message).join("; ")}.` : null,
  ].filter(Boolean);
  const open = undecided(review.figures);
  const organization = {
    maxlength: String(TEXT_LENGTH),
    autocomplete: "organization",
    value: localStorage.getItem(ORGANIZATION_KEY) ?? "",
  };
  const patient = { maxlength: String(TEXT_LENGTH), autocomplete: "off", required: ordered };
  const total = review.figures.length;
  const tick = `I sign ${number(open)} of ${plural(total, "figure")} that nobody has decided on, as the machine found them.`;
  return askFor({
    title: reading?.agreement ? "Sign the consensus" : "Sign this review",
    words: [
      ...words,
      reading?.withheld
        ? "With your name your reading is signed. Nothing is sent: once both readers have signed, their consensus is signed."
        : "With your name the result becomes final, and is sent to the systems that wait for it. " +
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
      ...(open ? [{ name: "undecided", label: tick, properties: { type: "checkbox", required: true } }] : []),
    ],
    yes: "Sign",
    act: async (values) => {
      await review.sign({ ...values, revision }).catch((problem) => {
        throw problem.status === 412 ? new Error(CHANGED) : problem;
      });
      keepReviewer(values.reviewer);
      localStorage.setItem(ORGANIZATION_KEY, values.organization);
    },
  });
}
