// A review as this browser sees it: what the service has, the decisions that are not sent yet, and the way back.
//
// A decision is seen at once and sent at once. What cannot be sent (no connection, access ended) waits, is kept in the
// browser's storage, and is sent when it can be. Where somebody else was faster, nothing is sent until the reviewer has
// seen theirs.

import { call, connection, get } from "./api.js";

const CANDIDATES_FROM = 0.3;
const MERGE_UM = 7.5; // nearer than this, two are one mitosis
const BATCH = 500;
const WATCH_MS = 15000;

export class Review extends EventTarget {
  #sending = null;
  #steps = []; // what undo takes back: for each step, the changes that do
  #ids = new Map(); // by the key of an addition: the id it got
  #numbers = 0;
  #watching = null;
  #seen = null; // items and candidates as they are seen now; null when something has changed

  constructor(analysisId) {
    super();
    this.path = `v1/analyses/${analysisId}`;
    this.memory = `mitosis-draft:${analysisId}`;
    this.server = null;
    this.candidates = [];
    this.pending = []; // {key, action, id, x, y, reason}
    this.conflict = null; // {revision, seen: whether theirs is loaded, by: names, differ: ids}
    this.problem = null; // why the last try to send failed, where that needs somebody
    this.onBack = () => this.flush();
    connection.addEventListener("back", this.onBack);
    connection.addEventListener("signed-in", this.onBack);
    this.#watching = setInterval(() => document.hidden || this.look(), WATCH_MS);
  }

  close() {
    clearInterval(this.#watching);
    connection.removeEventListener("back", this.onBack);
    connection.removeEventListener("signed-in", this.onBack);
  }

  // Loading

  async load() {
    const found = await get(`${this.path}/detections?candidates_from=${CANDIDATES_FROM}`);
    const first = this.server === null;
    this.candidates = found.candidates ?? [];
    this.#seen = null;
    this.#take(found);
    if (first) this.#restore();
    this.#tell();
  }

  /** See whether somebody else has changed something; loads it, unless decisions of this browser wait. */
  async look() {
    if (!this.server || this.#sending || this.conflict) return;
    const found = await get(`${this.path}/detections`).catch(() => null);
    if (!found || this.#sending || found.revision <= this.server.revision) return;
    if (this.pending.length) return this.#overtaken(found.revision);
    this.#take(found);
    this.#tell("overtaken");
  }

  #take(found) {
    const { candidates: _, ...server } = found;
    this.server = server;
    this.#seen = null;
  }

  #restore() {
    const draft = JSON.parse(localStorage.getItem(this.memory) ?? "null");
    if (!draft?.pending?.length) return;
    this.pending = draft.pending;
    this.#seen = null;
    this.#numbers = Math.max(...this.pending.map((each) => Number(each.key?.slice(1)) || 0));
    if (draft.revision === this.server.revision) this.flush();
    else this.#overtaken(this.server.revision, draft.revision);
  }

  #keep() {
    this.#seen = null;
    if (this.pending.length) {
      localStorage.setItem(this.memory, JSON.stringify({ revision: this.server.revision, pending: this.pending }));
    } else localStorage.removeItem(this.memory);
  }

  #tell(type = "change") {
    this.dispatchEvent(new Event(type));
    if (type !== "change") this.dispatchEvent(new Event("change"));
  }

  // What is seen

  /** Detections with all decisions on them, those not sent yet included. */
  get items() {
    return this.#now().items;
  }

  get counted() {
    return this.items.filter((item) => item.decision !== "rejected");
  }

  /** Figures below the threshold that are not one mitosis with a detection; `mpp` in um per level-0 px. */
  candidatesFrom(score, mpp) {
    const seen = this.#now();
    seen.candidates ??= apart(this.candidates, seen.items, mpp).map((each) => ({
      ...each,
      key: `c${each.id}`,
      candidate: true,
      origin: "machine",
      decision: null,
    }));
    return seen.candidates.filter((each) => each.score >= score);
  }

  #now() {
    if (this.#seen) return this.#seen;
    const found = new Map();
    for (const each of this.server?.detections ?? []) found.set(`d${each.id}`, { ...each, key: `d${each.id}` });
    for (const change of this.pending) apply(found, change);
    this.#seen = { items: [...found.values()], candidates: null };
    return this.#seen;
  }

  get canUndo() {
    return this.#steps.length > 0;
  }

  get sending() {
    return this.#sending !== null;
  }

  // Deciding

  decide(items, action, reason) {
    const back = [];
    for (const item of items) {
      const before = { accepted: "accept", rejected: "reject" }[item.decision] ?? "clear";
      this.pending.push({ action, ...this.#about(item), ...(reason ? { reason } : {}) });
      back.push(
        item.origin === "person" && action === "clear"
          ? { action: "add", x: item.x, y: item.y }
          : { action: before, key: item.key, ...(item.reason && before !== "clear" ? { reason: item.reason } : {}) },
      );
    }
    this.#steps.push(back);
    this.#keep();
    this.#tell();
    return this.flush();
  }

  add(places, reason) {
    const back = [];
    for (const { x, y } of places) {
      const key = this.#newKey();
      this.pending.push({ action: "add", key, x, y, ...(reason ? { reason } : {}) });
      back.push({ action: "clear", key });
    }
    this.#steps.push(back);
    this.#keep();
    this.#tell();
    this.flush();
    return back.map((each) => each.key);
  }

  async undo() {
    const back = this.#steps.pop();
    if (!back) return;
    await this.#sending;
    for (const change of back.reverse()) {
      const waits = this.pending.findIndex((each) => each.action === "add" && each.key === change.key);
      if (change.action === "clear" && waits >= 0) this.pending.splice(waits, 1);
      else if (change.action === "add") this.pending.push({ ...change, key: this.#newKey() });
      else this.pending.push({ ...change, ...this.#about(change) });
    }
    this.#keep();
    this.#tell();
    await this.flush();
  }

  #newKey() {
    this.#numbers += 1;
    return `n${this.#numbers}`;
  }

  /** The id of an item; of an addition that was sent meanwhile, the one that it got. */
  #about({ key }) {
    const id = key.startsWith("d") ? Number(key.slice(1)) : this.#ids.get(key);
    return id === undefined ? { key } : { key: `d${id}`, id };
  }

  keyNow(key) {
    return this.#ids.has(key) ? `d${this.#ids.get(key)}` : key;
  }

  // Sending

  flush() {
    this.#sending ??= this.#send().finally(() => {
      this.#sending = null;
      this.#tell();
    });
    return this.#sending;
  }

  async #send() {
    const reviewer = localStorage.getItem("mitosis-reviewer");
    while (this.pending.length && !this.conflict && reviewer) {
      const batch = this.#sendable();
      try {
        const changes = batch.map(({ key: _, ...change }) => change);
        const headers = { "If-Match": `"${this.server.revision}"` };
        const answer = await call(`${this.path}/detections`, { method: "PATCH", headers, json: { reviewer, changes } });
        this.#sent(batch, await answer.json());
      } catch (problem) {
        if (problem.status === 412) {
          if (await this.#wasMine(batch, reviewer)) continue;
          return;
        }
        const wrong = /^changes\.(\d+): (.*)/.exec(problem.message);
        if (problem.status === 422 && wrong && batch[Number(wrong[1])]) {
          this.pending.splice(Number(wrong[1]), 1);
          this.#keep();
          this.refused = wrong[2];
          this.#tell("refused");
          continue;
        }
        this.problem = problem;
        return;
      }
      this.problem = null;
    }
  }

  /** What can go at once: a decision about an addition waits until that has got its id. */
  #sendable() {
    const batch = [];
    for (const change of this.pending.slice(0, BATCH)) {
      if (change.action !== "add" && change.id === undefined) Object.assign(change, this.#about(change));
      if (change.action !== "add" && change.id === undefined) break;
      batch.push(change);
    }
    return batch;
  }

  #sent(batch, found) {
    const known = new Set(this.server.detections.map((each) => each.id));
    const fresh = found.detections.filter((each) => !known.has(each.id));
    for (const change of batch.filter((each) => each.action === "add")) {
      const place = fresh.findIndex((each) => Math.abs(each.x - change.x) < 0.01 && Math.abs(each.y - change.y) < 0.01);
      if (place >= 0) this.#ids.set(change.key, fresh.splice(place, 1)[0].id);
    }
    this.pending.splice(0, batch.length);
    this.#take(found);
    this.#keep();
    this.#tell();
  }

  /** A refusal may be the echo of one's own decisions, whose answer was lost: then they are there. */
  async #wasMine(batch, reviewer) {
    const [{ entries }, found] = await Promise.all([get(`${this.path}/review`), get(`${this.path}/detections`)]);
    const since = entries.filter((each) => each.revision > this.server.revision);
    const mine = batch.every((change, place) => {
      const entry = since[place];
      const about = change.action === "add" ? entry?.x === change.x && entry?.y === change.y : entry?.id === change.id;
      return entry && entry.action === change.action && entry.reviewer === reviewer && about;
    });
    if (mine) this.#sent(batch, found);
    else this.#overtaken(found.revision, this.server.revision, since);
    return mine;
  }

  // Two reviewers

  async #overtaken(revision, since = this.server.revision, known = null) {
    const entries =
      known ??
      (await get(`${this.path}/review`).catch(() => ({ entries: [] }))).entries.filter((each) => each.revision > since);
    const theirs = new Map(entries.map((each) => [each.id, each.action]));
    const differ = this.pending.filter(
      (each) => each.id !== undefined && theirs.has(each.id) && theirs.get(each.id) !== each.action,
    );
    this.conflict = {
      revision,
      loaded: false,
      by: [...new Set(entries.map((each) => each.reviewer))],
      differ: differ.map((each) => each.id),
    };
    this.#tell("conflict");
  }

  /** Show theirs, with the waiting decisions on it; nothing is sent yet. */
  async loadTheirs() {
    const found = await get(`${this.path}/detections`);
    this.#take(found);
    const ids = new Set(found.detections.map((each) => each.id));
    this.pending = this.pending.filter((each) => each.action === "add" || each.id === undefined || ids.has(each.id));
    this.#steps = [];
    this.#keep();
    if (this.pending.length) this.conflict = { ...this.conflict, loaded: true };
    else this.conflict = null;
    this.#tell("conflict");
  }

  sendMine() {
    this.conflict = null;
    this.#tell("conflict");
    return this.flush();
  }

  async discardMine() {
    this.pending = [];
    this.#steps = [];
    this.#keep();
    this.conflict = null;
    await this.load();
    this.#tell("conflict");
  }

  async sign(reviewer, organization) {
    await this.flush();
    if (this.pending.length) throw new Error("There are decisions that could not be sent yet.");
    const headers = { "If-Match": `"${this.server.revision}"` };
    const json = { reviewer, ...(organization ? { organization } : {}) };
    try {
      const answer = await call(`${this.path}/signature`, { method: "POST", headers, json });
      this.#take(await answer.json());
    } catch (problem) {
      if (problem.status === 412) await this.look();
      throw problem;
    }
    this.#steps = []; // what is signed is not undone by a key
    this.#tell();
  }
}

/** Those that are not within MERGE_UM of any of the others. */
function apart(some, others, mpp) {
  const cellOf = (value) => Math.floor(value / MERGE_UM);
  const cells = new Map();
  for (const { x, y } of others) {
    const key = `${cellOf(x * mpp[0])},${cellOf(y * mpp[1])}`;
    cells.set(key, [...(cells.get(key) ?? []), [x, y]]);
  }
  return some.filter(({ x, y }) => {
    const [column, row] = [cellOf(x * mpp[0]), cellOf(y * mpp[1])];
    for (let across = -1; across <= 1; across += 1) {
      for (let down = -1; down <= 1; down += 1) {
        const near = cells.get(`${column + across},${row + down}`) ?? [];
        if (near.some((other) => Math.hypot((other[0] - x) * mpp[0], (other[1] - y) * mpp[1]) < MERGE_UM)) return false;
      }
    }
    return true;
  });
}

function apply(found, change) {
  if (change.action === "add") {
    const { key, x, y, reason } = change;
    found.set(key, { key, id: null, x, y, score: null, origin: "person", decision: "accepted", reason, unsent: true });
    return;
  }
  const item = found.get(change.key);
  if (!item) return;
  if (change.action === "clear" && item.origin === "person") {
    found.delete(change.key);
    return;
  }
  item.decision = { accept: "accepted", reject: "rejected", clear: null }[change.action];
  item.reason = change.reason ?? null;
  item.unsent = true;
}
