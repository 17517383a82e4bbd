// The work list: all analyses a page at a time, as the service searches, filters and sorts them; and live.

import { get } from "./api.js";
import { ROWS_PER_PAGE, STATUS_WORDS } from "./contract.js";
import { loadDefinitions } from "./definitions.js";
import { announce, fill, h } from "./dom.js";
import { watchAnalyses } from "./events.js";
import { session } from "./login.js";
import { problemElements } from "./problems.js";
import { createRow } from "./work_list_row.js";

const COLUMNS = [
  ["Slide", "name"],
  ["Accession", "accession"],
  ["MAI", "-mai"],
  ["Mitoses"],
  ["Standing"],
  ["Reviewer"],
  ["Age", "-created"],
];
const FILTERS = {
  all: ["All", {}],
  open: ["To sign", { signed: false }],
  signed: ["Signed", { signed: true }],
  held: ["Held", { held: true }],
  queued: ["Waiting", { status: "queued" }],
  running: ["Running", { status: "running" }],
  failed: ["Failed", { status: "failed" }],
};
const FILTERS_OF_TWO_READERS = {
  unread: ["To be read by both", { signed_readings: 0 }],
  half: ["Read by one of two", { signed_readings: 1 }],
  both: ["Consensus to sign", { signed_readings: 2 }],
};
const NOTHING_YET = "Nothing yet. A slide that is sent appears here.";
const NOTHING_FOUND = "No analysis fits.";
const LIMITED = "More fit than are searched or sorted at once: these are the first. Type more, or choose fewer.";
const NO_WORKER = "No worker is alive: what waits stays waiting. Tell the people who run the service.";
const [TYPED_MS, CHANGED_MS] = [250, 400];

/** `onDeleted()` is called when an analysis was deleted here. */
export function createWorkList({ onDeleted }) {
  const rows = new Map(); // by id
  const body = h("tbody");
  const empty = h("p", { class: "quiet empty" }, NOTHING_YET);
  const note = h("p", { class: "quiet", hidden: true }, LIMITED);
  const noWorker = h("p", { class: "problem", role: "status", hidden: true }, NO_WORKER);
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const search = h("input", {
    id: "search",
    type: "search",
    placeholder: "any case",
    autocomplete: "off",
    oninput: () => loadSoon(TYPED_MS),
  });
  const filters = session.second_reading === "off" ? FILTERS : { ...FILTERS, ...FILTERS_OF_TWO_READERS };
  const filter = h(
    "select",
    { id: "filter", onchange: () => loadFirst() },
    Object.entries(filters).map(([value, [label]]) => h("option", { value }, label)),
  );
  const ofSlide = h("button", { type: "button", hidden: true, onclick: () => showSlide(null) });
  const earlier = h("button", { type: "button", onclick: () => turn(-1) }, "‹ Page before");
  const later = h("button", { type: "button", onclick: () => turn(1) }, "Next page ›");
  const pageWords = h("span", { class: "quiet" });
  const pages = h("nav", { class: "pages", "aria-label": "Pages", hidden: true }, earlier, pageWords, later);
  let sort = "-created";
  let slideId = null; // of whose analyses only are shown
  let cursors = [null]; // of the pages up to this one
  let following = null; // the next page's cursor
  let classes = []; // of the MAI, in words
  let asked = 0; // requests: only the last one's answer counts
  let timer = null;
  let stopWatching = null;
  let isReady = false; // the stream has told what there was

  async function load() {
    clearTimeout(timer);
    timer = null;
    asked += 1;
    const mine = asked;
    const query = { limit: ROWS_PER_PAGE, sort, ...filters[filter.value][1] };
    if (search.value.trim()) query.search = search.value.trim();
    if (slideId) query.slide_id = slideId;
    if (cursors.at(-1)) query.cursor = cursors.at(-1);
    try {
      const page = await get(`v1/analyses?${new URLSearchParams(query)}`);
      if (mine !== asked) return;
      problem.hidden = true;
      draw(page, Object.keys(query).length > 2);
    } catch (error) {
      if (mine === asked) showProblem(error);
    }
  }

  function loadFirst() {
    cursors = [null];
    return load();
  }

  function loadSoon(ms) {
    if (ms === TYPED_MS) cursors = [null];
    else if (timer) return;
    clearTimeout(timer);
    timer = setTimeout(load, ms);
  }

  async function turn(step) {
    if (step > 0) cursors.push(following);
    else cursors.pop();
    await load();
    table.scrollIntoView({ block: "start" });
  }

  function draw(page, isFiltered) {
    const shown = page.analyses.map((analysis) => {
      if (!rows.has(analysis.id)) rows.set(analysis.id, createRow({ onProblem: showProblem, onGone: gone, showSlide }));
      const row = rows.get(analysis.id);
      row.draw(analysis, classes);
      return row.element;
    });
    const ids = new Set(page.analyses.map((each) => each.id));
    for (const id of rows.keys()) if (!ids.has(id)) rows.delete(id);
    const isSame = shown.length === body.children.length && shown.every((each, at) => body.children[at] === each);
    if (!isSame) fill(body, shown);
    following = page.next_cursor;
    note.hidden = !page.limited;
    empty.hidden = shown.length > 0;
    table.hidden = shown.length === 0;
    fill(empty, isFiltered ? NOTHING_FOUND : NOTHING_YET);
    pages.hidden = cursors.length === 1 && !following;
    earlier.disabled = cursors.length === 1;
    later.disabled = !following;
    fill(pageWords, `page ${cursors.length}`);
    if (isFiltered) announce(`${shown.length} on this page`);
  }

  function showProblem(error) {
    fill(problem, problemElements(error));
    problem.hidden = false;
  }

  function gone(id) {
    rows.delete(id);
    onDeleted();
    load();
  }

  /** Show only the analyses of a slide; null shows all again. */
  function showSlide(analysis) {
    slideId = analysis?.slide_id ?? null;
    ofSlide.hidden = !slideId;
    fill(ofSlide, analysis ? `Only ${analysis.slide_name} ✕` : "");
    loadFirst();
  }

  function sortBy(wanted) {
    const [other, name] = sort.startsWith("-") ? [sort.slice(1), sort.slice(1)] : [`-${sort}`, sort];
    sort = wanted.replace("-", "") === name ? other : wanted;
    drawHeadings();
    loadFirst();
  }

  const headings = COLUMNS.map(([label, by]) => {
    if (!by) return { element: h("th", { scope: "col" }, label) };
    const button = h("button", { type: "button", class: "plain", onclick: () => sortBy(by) }, label);
    return { element: h("th", { scope: "col" }, button), by: by.replace("-", ""), button, label };
  });

  function drawHeadings() {
    for (const { element: heading, by, button, label } of headings.filter((each) => each.by)) {
      const isSorted = sort.replace("-", "") === by;
      const descends = sort.startsWith("-");
      // an age that grows is a time that falls
      const isUp = by === "created" ? descends : !descends;
      if (isSorted) heading.setAttribute("aria-sort", isUp ? "ascending" : "descending");
      else heading.removeAttribute("aria-sort");
      fill(button, label, h("span", { "aria-hidden": "true" }, isSorted ? (isUp ? " ▲" : " ▼") : ""));
    }
  }

  function onStatus(now) {
    const row = rows.get(now.id);
    const isNew = isReady && !row;
    const hasChanged = row && row.analysis.status !== now.status;
    if (row) row.draw(now, classes);
    if (hasChanged) announce(`${now.slide_name}: ${STATUS_WORDS[now.status] ?? now.status}`);
    if (isNew || hasChanged) loadSoon(CHANGED_MS);
  }

  const table = h(
    "table",
    { class: "work", hidden: true },
    h("caption", { class: "unseen" }, "Analyses"),
    h("thead", {}, h("tr", {}, [...headings.map((each) => each.element), h("td")])),
    body,
  );
  drawHeadings();
  const form = h(
    "form",
    {
      role: "search",
      class: "search",
      onsubmit: (event) => {
        event.preventDefault();
        loadFirst();
      },
    },
    h("label", { for: "search" }, "Name or accession begins with"),
    search,
    h("label", { for: "filter" }, "Show"),
    filter,
    ofSlide,
  );
  const element = h(
    "section",
    { class: "queue", "aria-labelledby": "queue-title" },
    h("div", { class: "queue-head" }, h("h2", { id: "queue-title" }, "Analyses"), form),
    noWorker,
    problem,
    note,
    empty,
    table,
    pages,
  );
  return {
    element,
    load,
    async open() {
      stopWatching ??= watchAnalyses({
        onStatus,
        onDeleted: (id) => rows.has(id) && loadSoon(CHANGED_MS),
        onReady: () => {
          if (isReady || !problem.hidden) loadSoon(CHANGED_MS); // something may have changed while nobody told
          isReady = true;
        },
        onWorkers: (alive) => {
          noWorker.hidden = alive > 0;
        },
      });
      load();
      if (!classes.length) {
        const known = await loadDefinitions().catch(() => null);
        classes = known?.definitions[0].classes ?? [];
        for (const row of rows.values()) row.draw(row.analysis, classes);
      }
    },
    close() {
      stopWatching?.();
      stopWatching = null;
      isReady = false;
    },
  };
}
