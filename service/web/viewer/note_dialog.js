// The dialog in which a note on a figure is written.

import { REASON_LENGTH } from "./contract.js";
import { askFor } from "./dialog.js";
import { nameOf } from "./figures.js";

/** Resolves with the new text, or with null where it is the same or the dialog was cancelled. */
export async function askForNote(figure) {
  const before = figure.note ?? "";
  const properties = { maxlength: String(REASON_LENGTH), value: before };
  const values = await askFor({
    title: `Note on ${nameOf(figure)}`,
    words: ["It is kept with the review, whatever is decided. An empty one is taken away."],
    fields: [{ name: "note", label: "Note", properties }],
    yes: "Keep",
  });
  return !values || values.note === before ? null : values.note;
}
