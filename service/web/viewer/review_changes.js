// Changes of a review: {key, action, id, x, y, reason, by}. `key` names a figure of this page; `id` is the service's, and
// is not known for an addition until it is saved; `by` is who made it.

import { DECISIONS } from "./contract.js";

/** What one change does to the figures (a Map by key), as long as the service has not answered. */
export function applyChange(figures, change) {
  if (change.action === "add") {
    const { key, x, y, reason, by: reviewer } = change;
    const added = { key, id: null, x, y, score: null, origin: "person", decision: "accepted", unsent: true };
    figures.set(key, { ...added, reason, reviewer });
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
  figure.reviewer = figure.decision && change.by;
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
  const { key: _key, by: _by, ...sent } = change;
  return sent;
}

/** Those of some changes that the entries of a review's log do not have, and those that they have, each with its entry. */
export function withoutArrived(changes, entries) {
  const left = [...entries];
  const arrived = [];
  const waiting = changes.filter((change) => {
    const at = left.findIndex(
      ({ action, reviewer, id, x, y }) =>
        action === change.action &&
        reviewer === change.by &&
        (action === "add" ? x === change.x && y === change.y : id === change.id),
    );
    if (at >= 0) arrived.push([change, ...left.splice(at, 1)]);
    return at < 0;
  });
  return { waiting, arrived };
}
