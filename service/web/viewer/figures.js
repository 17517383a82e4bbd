// Figures of a review: what the machine or a person marked as a mitosis, and candidates below the threshold.
//
// A figure has a `key` of this page, the service's `id` (null until an addition is saved), x and y (level-0 px, counted
// from the middle of the first one), `score` (null where a person added it), `origin`, `decision`.

import { number } from "./format.js";

const KIND_WORDS = {
  open: "not decided",
  accepted: "accepted",
  rejected: "rejected",
  added: "added",
  candidate: "below threshold",
};

export function kindOf(figure) {
  if (figure.candidate) return "candidate";
  if (figure.decision === "rejected") return "rejected";
  if (figure.origin === "person") return "added";
  return figure.decision === "accepted" ? "accepted" : "open";
}

export const kindWords = (figure) => KIND_WORDS[kindOf(figure)];

/** Cut to four digits, as thresholds are, and not rounded up. */
export const scoreWords = ({ score }) => (score === null ? "by hand" : number(Math.floor(score * 1e4) / 1e4, 4));

export function nameOf(figure) {
  if (figure.candidate) return `Candidate ${figure.id}`;
  return figure.id === null ? "New mitosis" : `Mitosis ${figure.id}`;
}

/** What each of two readers said of a figure, once both have signed. */
export function saidWords({ id, candidate }, { second_reading: told }) {
  const found = candidate ? null : told?.figures?.find((each) => each.id === id);
  if (!found) return null;
  const words = ["first", "second"].map((reader) => {
    const { counted, decision, reason, note } = found[reader];
    const said = [decision ?? (counted ? "not decided, counted" : "not marked"), reason, note].filter(Boolean);
    return `${told.agreement[reader].reviewer}: ${said.join(", ")}`;
  });
  return words.join(" · ");
}

/** Whether a figure lies in a window of the report; `mpp` in um per level-0 px (x, y). */
export function isInWindow(figure, window, mpp) {
  const [across, down] = [Math.abs(figure.x - window.x) * mpp[0], Math.abs(figure.y - window.y) * mpp[1]];
  if (window.shape === "circle") return Math.hypot(across, down) <= window.radius_um;
  return across <= window.width_um / 2 && down <= window.height_um / 2;
}

/** Those that are not within `distanceUm` of any of the others; `mpp` in um per level-0 px (x, y). */
export function awayFrom(figures, others, mpp, distanceUm) {
  const cellOf = (value) => Math.floor(value / distanceUm);
  const cells = new Map();
  for (const { x, y } of others) {
    const key = `${cellOf(x * mpp[0])},${cellOf(y * mpp[1])}`;
    cells.set(key, [...(cells.get(key) ?? []), [x, y]]);
  }
  const isNear = (x, y, [otherX, otherY]) => Math.hypot((otherX - x) * mpp[0], (otherY - y) * mpp[1]) < distanceUm;
  return figures.filter(({ x, y }) => {
    const [column, row] = [cellOf(x * mpp[0]), cellOf(y * mpp[1])];
    for (let across = -1; across <= 1; across += 1) {
      for (let down = -1; down <= 1; down += 1) {
        const cell = cells.get(`${column + across},${row + down}`) ?? [];
        if (cell.some((other) => isNear(x, y, other))) return false;
      }
    }
    return true;
  });
}
