// A review as this browser sees it: what the service has, the decisions that are not sent yet, and how to undo them.
//
// A decision is shown at once and sent at once. What cannot be sent (no connection, access ended) waits in the browser's
// storage until it can. Where another reviewer has changed the review in between, nothing is sent until this one has
// seen those changes.

import { call, get, whenBack } from "./api.js";
import { CHANGES_PER_REQUEST } from "./contract.js";
import { draftKey, keep, kept, takeDrafts, undoKey } from "./drafts.js";
import { awayFrom } from "./figures.js";
import { applyChange, undoOf, withoutArrived, withoutKey } from "./review_changes.js";
import { reviewerName } from "./reviewer.js";

export const LOWEST_CANDIDATE = 0.3; // score of the candidates that are loaded
const UNDO_STEPS = 100; // that are kept in the browser's storage
const LOOK_MS = 15000; // from one look at what others have changed to the next
const SAME_PLACE_PX = 0.01; // the service rounds places

/** Events: `change`, `conflict`, `overtaken` (somebody else's changes were loaded), `refused` (one of ours). */
export class Review extends EventTarget {
  #sending = null; // a promise, while decisions are sent
  #undoSteps = []; // for each step, the changes that undo it
  #savedIds = new Map(); // by the key of an addition: the id that it got
  #lastNewKey = 0;
  #timer = null;
  #merged = null; // figures and candidates with all decisions; null when something has changed

  /** `mergeUm`: figures nearer than this are one mitosis; `mpp` in um per level-0 px (x, y). */
  constructor(analysisId, { mergeUm, mpp }) {
    super();
    this.path = `v1/analyses/${analysisId}`;
    this.analysisId = analysisId;
    this.pageId = Math.random().toString(36).slice(2);
    this.undoKey = undoKey(analysisId);
    this.mergeUm = mergeUm;
    this.mpp = mpp;
    this.server = null; // the review as the service has it
    this.candidates = [];
    this.pending = []; // changes that are not sent yet
    this.conflict = null; // {loaded: whether theirs is shown, by: their names, differ: ids decided differently}
    this.problem = null; // why sending failed, where it will not succeed by itself
    this.refused = null; // why the service refused a change
    this.isKept = true; // whether what waits outlives the page
    this.stopFlushing = whenBack(() => this.flush());
    this.onLeave = (event) => this.isKept || event.preventDefault(); // the browser asks
    addEventListener("beforeunload", this.onLeave);
    this.#timer = setInterval(() => document.hidden || this.loadIfChanged(), LOOK_MS);
  }

  close() {
    clearInterval(this.#timer);
    removeEventListener("beforeunload", this.onLeave);
    if (!this.pending.length) this.stopFlushing(); // else they are sent as soon as they can be
  }

  // Loading

  /** The address of a part of the review, as this reviewer may see it. */
  address(part, query = {}) {
    const reviewer = reviewerName();
    return `${this.path}/${part}?${new URLSearchParams({ ...query, ...(reviewer && { reviewer }) })}`;
  }

  #get = () => get(this.address("detections"));

  /** The entries of the reading that is shown. */
  async #log() {
    const { entries } = await get(this.address("review"));
    const reading = this.server.second_reading?.reading;
    return reading ? entries.filter((entry) => entry.reading === reading) : entries;
  }

  async load() {
    const loaded = await get(this.address("detections", { candidates_from: LOWEST_CANDIDATE }));
    const isFirst = this.server === null;
    this.candidates = loaded.candidates ?? [];
    this.#setServer(loaded);
    if (isFirst) {
      this.#restoreUndo();
      this.#restoreDraft();
    }
    this.#notify();
  }

  /** Load what somebody else has changed; while decisions of this browser wait, only say so. */
  async loadIfChanged() {
    if (!this.server || this.#sending || this.conflict) return;
    const loaded = await this.#get().catch(() => null);
    if (!loaded || this.#sending || loaded.revision <= this.server.revision) return;
    if (this.pending.length) {
      await this.#setConflict();
      return;
    }
    this.#setServer(loaded);
    this.#notify("overtaken");
  }

  #setServer(loaded) {
    this.server = { ...loaded };
    delete this.server.candidates;
    this.loadedFor = reviewerName();
    this.#merged = null;
  }

  /** Take over what waits, be it of a page that was closed; where two people read, only one's own. */
  #restoreDraft() {
    const { revision, second_reading: isRead } = this.server;
    const drafts = takeDrafts(this.analysisId, ({ by }) => !isRead || !by || by === reviewerName());
    if (!drafts.length) return;
    this.pending = drafts.flatMap((draft) => draft.pending);
    const seen = Math.min(...drafts.map((draft) => draft.revision));
    this.#keepDraft(seen);
    if (seen === revision) this.flush();
    else this.#isOwnEcho(seen).then((isOwn) => isOwn && this.flush());
  }

  #keepDraft(revision = this.server.revision) {
    this.#merged = null;
    const draft = this.pending.length ? { revision, pending: this.pending } : null;
    this.isKept = keep(`${draftKey(this.analysisId)}:${this.pageId}`, draft);
    this.#keepUndo();
  }

  /** Keep what can be undone, for when the page is loaded anew; it holds for this revision only. */
  #keepUndo() {
    const steps = this.#undoSteps
      .slice(-UNDO_STEPS)
      .map((step) => step.map((each) => ({ ...each, ...this.#keyAndId(each) })));
    keep(this.undoKey, steps.length ? { revision: this.server.revision, steps } : null);
  }

  #restoreUndo() {
    const before = kept(this.undoKey);
    if (before?.revision === this.server.revision) this.#undoSteps = before.steps;
  }

  #notify(type = "change") {
    this.dispatchEvent(new Event(type));
    if (type !== "change") this.dispatchEvent(new Event("change"));
  }

  // What is shown

  /** Detections with all decisions on them, also those that are not sent yet. */
  get figures() {
    return this.#withDecisions().figures;
  }

  get counted() {
    return this.figures.filter((figure) => figure.decision !== "rejected");
  }

  /** Candidates from a score on that are not one mitosis with a detection. */
  candidatesFrom(score) {
    const merged = this.#withDecisions();
    merged.candidates ??= awayFrom(this.candidates, merged.figures, this.mpp, this.mergeUm).map((each) =>
      Object.assign({}, each, { key: `c${each.id}`, candidate: true, origin: "machine", decision: null }),
    );
    return merged.candidates.filter((each) => each.score >= score);
  }

  #withDecisions() {
    if (this.#merged) return this.#merged;
    const figures = new Map();
    const differing = new Set(this.server?.second_reading?.disagreements);
    for (const each of this.server?.detections ?? []) {
      figures.set(`d${each.id}`, { ...each, key: `d${each.id}`, differs: differing.has(each.id) });
    }
    for (const change of this.pending) applyChange(figures, change);
    this.#merged = { figures: [...figures.values()], candidates: null };
    return this.#merged;
  }

  get canUndo() {
    return this.#undoSteps.length > 0;
  }

  get isSending() {
    return this.#sending !== null;
  }

  // Deciding

  /** Accept, reject or clear figures, or note something on them. */
  decide(figures, action, reason) {
    this.#undoSteps.push(figures.map((figure) => undoOf(figure, action)));
    return this.#send(figures.map((figure) => ({ action, ...this.#keyAndId(figure), ...(reason && { reason }) })));
  }

  /** Add mitoses at places; returns their keys. */
  add(places, reason) {
    const added = places.map(({ x, y }) => ({ action: "add", key: this.#newKey(), x, y, ...(reason && { reason }) }));
    this.#undoSteps.push(added.map(({ key }) => ({ action: "clear", key })));
    this.#send(added);
    return added.map(({ key }) => key);
  }

  async undo() {
    const step = this.#undoSteps.pop();
    if (!step) return;
    await this.#sending;
    const changes = [];
    for (const change of step.toReversed()) {
      const waiting = this.pending.findIndex((each) => each.action === "add" && each.key === change.key);
      if (change.action === "clear" && waiting >= 0) this.pending.splice(waiting, 1);
      else if (change.action === "add") changes.push({ ...change, key: this.#newKey() });
      else changes.push({ ...change, ...this.#keyAndId(change) });
    }
    await this.#send(changes);
  }

  /** Let changes wait in the name of who makes them, and send them. */
  #send(changes) {
    const by = reviewerName();
    this.pending.push(...changes.map((each) => ({ ...each, by })));
    this.#keepDraft();
    this.#notify();
    return this.flush();
  }

  #newKey = () => `n${this.pageId}-${(this.#lastNewKey += 1)}`;

  /** The key and id of a figure; an addition that was saved in the meantime has those of its detection. */
  #keyAndId({ key }) {
    if (!key) return {}; // of an addition that comes back by undo
    const id = key.startsWith("d") ? Number(key.slice(1)) : this.#savedIds.get(key);
    return id === undefined ? { key } : { key: `d${id}`, id };
  }

  /** The key that a figure has now: it changes when an addition is saved. */
  keyNow(key) {
    return this.#savedIds.has(key) ? `d${this.#savedIds.get(key)}` : key;
  }

  // Sending

  /** Send what waits, as far as it can be sent. */
  flush() {
    this.#sending ??= this.#sendAll().finally(() => {
      this.#sending = null;
      this.#notify();
    });
    return this.#sending;
  }

  async #sendAll() {
    while (this.pending.length && !this.conflict) {
      const changes = this.#sendable();
      const reviewer = this.pending[0].by ?? reviewerName();
      if (this.server.second_reading && this.loadedFor !== reviewer) {
        if (reviewer !== reviewerName()) return; // nobody else's reading is shown
        const own = await this.#get().catch((problem) => (this.problem = problem));
        if (own === this.problem) return;
        this.#setServer(own); // the reading of that name
      }
      try {
        this.#saved(changes, await this.#patch(changes, reviewer));
      } catch (problem) {
        if (!(await this.#canContinueAfter(problem, changes))) return;
      }
      this.problem = null;
    }
  }

  async #patch(changes, reviewer) {
    const headers = { "If-Match": `"${this.server.revision}"` };
    const json = { reviewer, changes: changes.map(withoutKey) };
    return (await call(`${this.path}/detections`, { method: "PATCH", headers, json })).json();
  }

  async #canContinueAfter(problem, changes) {
    if (problem.status === 412) return this.#isOwnEcho(this.server.revision);
    const refusal = problem.status === 422 && /^changes\.(\d+): (.*)/.exec(problem.message);
    if (!refusal || !changes[Number(refusal[1])]) {
      this.problem = problem;
      return false;
    }
    const [change] = this.pending.splice(Number(refusal[1]), 1);
    if (change.action === "add") this.#forget(change.key); // there is nothing to undo, and nothing to decide on
    this.#keepDraft();
    this.refused = refusal[2];
    this.#notify("refused");
    return true;
  }

  #forget(key) {
    this.pending = this.pending.filter((each) => each.key !== key);
    const steps = this.#undoSteps.map((step) => step.filter((each) => each.key !== key));
    this.#undoSteps = steps.filter((step) => step.length > 0);
  }

  /** What can be sent now: a decision on an addition waits until that has got its id. */
  #sendable() {
    const changes = [];
    const [{ by }] = this.pending;
    for (const change of this.pending.slice(0, CHANGES_PER_REQUEST)) {
      if (change.by !== by) break; // each is sent in the name of who made it
      if (change.action !== "add" && change.id === undefined) Object.assign(change, this.#keyAndId(change));
      if (change.action !== "add" && change.id === undefined) break;
      changes.push(change);
    }
    return changes;
  }

  #saved(changes, loaded) {
    const known = new Set(this.server.detections.map((each) => each.id));
    const isAt = (one, other) => Math.hypot(one.x - other.x, one.y - other.y) < SAME_PLACE_PX;
    const fresh = loaded.detections.filter((each) => !known.has(each.id));
    for (const change of changes.filter((each) => each.action === "add")) {
      const index = fresh.findIndex((each) => isAt(each, change));
      if (index >= 0) this.#savedIds.set(change.key, fresh.splice(index, 1)[0].id);
    }
    this.pending.splice(0, changes.length);
    this.#setServer(loaded);
    this.#keepDraft();
    this.#notify();
  }

  /** Whether nobody else has changed the review since a revision; what had arrived, the answer lost, waits no more. */
  async #isOwnEcho(since) {
    const [entries, loaded] = await Promise.all([this.#log(), this.#get()]);
    const theirs = entries.filter((entry) => entry.revision > since);
    const { waiting, arrived } = withoutArrived(this.pending, theirs);
    const isOwn = theirs.every(
      ({ id, reviewer }) =>
        this.pending.some((each) => each.by === reviewer) && !waiting.some((each) => each.id === id),
    );
    if (isOwn) {
      for (const [{ key }, { id }] of arrived) this.#savedIds.set(key, id);
      this.pending = waiting;
      this.#setServer(loaded);
      this.#keepDraft();
      this.#notify();
    } else await this.#setConflict(since, entries);
    return isOwn;
  }

  // Two reviewers

  /** Say that others have changed the review since a revision; nothing is sent until that is settled. */
  async #setConflict(sinceRevision = this.server.revision, log = null) {
    const entries = log ?? (await this.#log().catch(() => []));
    const theirs = entries.filter((entry) => entry.revision > sinceRevision);
    const actions = new Map(theirs.map((entry) => [entry.id, entry.action]));
    const differ = this.pending.filter((each) => actions.has(each.id) && actions.get(each.id) !== each.action);
    const by = [...new Set(theirs.map((entry) => entry.reviewer))];
    this.conflict = { loaded: false, by, differ: differ.map((each) => each.id) };
    this.#notify("conflict");
  }

  /** Show the others' changes, with the waiting decisions on them; nothing is sent yet. */
  async loadTheirs() {
    const loaded = await this.#get();
    this.#setServer(loaded);
    const ids = new Set(loaded.detections.map((each) => each.id));
    this.pending = this.pending.filter((each) => each.action === "add" || each.id === undefined || ids.has(each.id));
    this.#undoSteps = [];
    this.#keepDraft();
    this.conflict = this.pending.length ? { ...this.conflict, loaded: true } : null;
    this.#notify("conflict");
  }

  sendMine() {
    this.conflict = null;
    this.#notify("conflict");
    return this.flush();
  }

  async discardMine() {
    this.pending = [];
    this.#undoSteps = [];
    this.#keepDraft();
    this.conflict = null;
    await this.load();
    this.#notify("conflict");
  }

  // Signing

  /** Sign the review at a revision. Throws where decisions wait, or where somebody has changed it since. */
  async sign({ reviewer, organization, patient, revision }) {
    await this.flush();
    if (this.pending.length) throw new Error("There are decisions that could not be sent yet.");
    const headers = { "If-Match": `"${revision}"` };
    const json = { reviewer, ...(organization && { organization }), ...(patient && { patient_id: patient }) };
    try {
      const response = await call(`${this.path}/signature`, { method: "POST", headers, json });
      this.#setServer(await response.json());
    } catch (problem) {
      if (problem.status === 412) await this.loadIfChanged();
      const { signed } = this.server; // be it by this one, the answer lost
      if (problem.status !== 412 || signed?.revision !== revision + 1 || signed.reviewer !== reviewer) throw problem;
    }
    this.#undoSteps = []; // a key press must not undo what is signed
    this.#keepUndo();
    this.#notify();
  }
}
