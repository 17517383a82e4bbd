// Decisions that wait to be sent, and what can be undone, in the browser's storage. Each page has its own draft of an
// analysis, so that none overwrites another's.

const UNDO = "mitosis-undo:";

export const undoKey = (analysisId) => `${UNDO}${analysisId}`;
export const draftKey = (analysisId) => `mitosis-draft:${analysisId}`;
const keysOf = (prefix) => Object.keys(localStorage).filter((key) => key.startsWith(prefix));
export const kept = (key) => JSON.parse(localStorage.getItem(key) ?? "null");

/** Take the drafts of an analysis out of the storage, of this page and of others, whose changes all fit. */
export function takeDrafts(analysisId, fits) {
  const found = keysOf(draftKey(analysisId)).map((key) => ({ key, ...kept(key) }));
  const drafts = found.filter(({ pending }) => pending.every(fits));
  for (const { key } of drafts) localStorage.removeItem(key);
  return drafts;
}

/** Keep a value, null: take it away. False where there is no place for it, also without what could be undone. */
export function keep(key, value) {
  for (const old of [[], keysOf(UNDO)]) {
    for (const each of old) localStorage.removeItem(each);
    try {
      if (value) localStorage.setItem(key, JSON.stringify(value));
      else localStorage.removeItem(key);
      return true;
    } catch {
      // it is full
    }
  }
  return false;
}
