// Changes of a review: {key, action, id, x, y, reason}. `key` names a figure of this page; `id` is the service's, and is
// not known for an addition until it is saved.

import { DECISIONS } from "./contract.js";

/** What one change does to the figures (a Map by key), as long as the service has not answered. */
export function applyChange(figures, change) {
  if (change.action === "add") {
    const { key, x, y, reason } = change;
    const added = { key, id: null, x, y, score: null, origin: "person", decision: "accepted", reason, unsent: true };
    figures.set(key, added);
    return;
  }
  const figure = figures.get(change.key);
  if (!figure) return;
  if (change.action === "clear" && figure.origin === "person" && !figure.proposed) {
    figures.delete(change.key);
    return;
  }
  if (change.action === "note") {
    figure.note = change.reason ?? null;
    figure.unsent = true;
    return;
  }
  figure.decision = DECISIONS[change.action];
  figure.reason = change.reason ?? null;
  figure.unsent = true;
}

/** The change that undoes an action on a figure: its decision before, or the addition once more. */
export function undoOf(figure, action) {
  if (figure.origin === "person" && !figure.proposed && action === "clear")
    return { action: "add", x: figure.x, y: figure.y };
  if (action === "note") return { action, key: figure.key, ...(figure.note && { reason: figure.note }) };
  const before = Object.keys(DECISIONS).find((each) => DECISIONS[each] === figure.decision) ?? "clear";
  const reason = figure.reason && before !== "clear" ? { reason: figure.reason } : {};
  return { action: before, key: figure.key, ...reason };
}

/** What the service takes of a change. */
export function withoutKey(change) {
  const sent = { ...change };
  delete sent.key;
  return sent;
}

/** Whether the entries of a review's log are these changes, made by this reviewer, in this order. */
export function areSame(changes, entries, reviewer) {
  return changes.every((change, index) => {
    const entry = entries[index];
    if (!entry || entry.action !== change.action || entry.reviewer !== reviewer) return false;
    return change.action === "add" ? entry.x === change.x && entry.y === change.y : entry.id === change.id;
  });
}
