// The list of analyses, live: progress, errors in plain words, cancel and delete, search by accession number.

import { viewAddress } from "./address.js";
import { statusElements } from "./analysis_status.js";
import { call, get } from "./api.js";
import { ANALYSES_PER_PAGE, STATUS_WORDS, UNFINISHED } from "./contract.js";
import { announce, fill, h } from "./dom.js";
import { watchAnalyses } from "./events.js";
import { dateAndTime, number } from "./format.js";
import { advice } from "./problems.js";

const HEADINGS = ["Slide", "Accession", "Sent", "Status", ""];
const NOTHING_YET = "Nothing yet. A slide that is sent appears here.";
const NOTHING_FOUND = "No analysis has this accession number.";

const isUnfinished = (analysis) => UNFINISHED.includes(analysis.status);
const getPage = (query) => get(`v1/analyses?${new URLSearchParams({ limit: ANALYSES_PER_PAGE, ...query })}`);

export function createAnalysisList() {
  const analyses = new Map(); // by id
  const rows = new Map(); // by id
  const body = h("tbody");
  const empty = h("p", { class: "quiet empty" }, NOTHING_YET);
  const searchInput = h("input", { id: "search", type: "search", placeholder: "H26-…", autocomplete: "off" });
  const olderButton = h("button", { type: "button", hidden: true, onclick: () => loadOlder() }, "Older analyses");
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  let foundIds = null; // by the last search; null: all are shown
  let cursor = null; // of the next older page
  let reachedOldest = false;
  let stopWatching = null;
  let drawRequest = 0;

  async function search() {
    const accessionNumber = searchInput.value.trim();
    if (!accessionNumber) {
      foundIds = null;
      draw();
      return;
    }
    try {
      const page = await getPage({ accession_number: accessionNumber });
      foundIds = new Set(page.analyses.map((each) => each.id));
      for (const each of page.analyses) analyses.set(each.id, each);
      announce(`${page.analyses.length} found`);
      draw();
    } catch (error) {
      showProblem(error);
    }
  }

  async function loadOlder() {
    let allKnown = true;
    while (allKnown) {
      const page = await getPage(cursor ? { cursor } : {});
      cursor = page.next_cursor;
      allKnown = Boolean(cursor) && page.analyses.every((each) => analyses.has(each.id));
      for (const each of page.analyses) analyses.set(each.id, each);
    }
    reachedOldest = !cursor;
    olderButton.hidden = reachedOldest;
    draw();
  }

  function showProblem(error) {
    fill(problem, advice(error.code), " ", h("span", { class: "quiet" }, error.message));
    problem.hidden = false;
  }

  async function cancelOrDelete(analysis) {
    const cancels = isUnfinished(analysis);
    if (!cancels && !confirm(`Delete the analysis of ${analysis.slide_name} with its result and review?`)) return;
    problem.hidden = true;
    try {
      await call(`v1/analyses/${analysis.id}`, { method: "DELETE" });
      if (!cancels) remove(analysis.id);
      announce(cancels ? "cancelled" : "deleted");
    } catch (error) {
      showProblem(error);
    }
  }

  function remove(id) {
    analyses.delete(id);
    rows.get(id)?.element.remove();
    rows.delete(id);
    draw();
  }

  function draw() {
    const shown = [...analyses.values()].filter((each) => !foundIds || foundIds.has(each.id));
    shown.sort((one, other) => (one.created_at < other.created_at ? 1 : -1));
    for (const analysis of shown) {
      if (!rows.has(analysis.id)) rows.set(analysis.id, createRow(analysis, cancelOrDelete));
      rows.get(analysis.id).draw(analysis);
    }
    const elements = shown.map((each) => rows.get(each.id).element);
    const changed = elements.length !== body.children.length || elements.some((each, at) => body.children[at] !== each);
    if (changed) fill(body, elements);
    empty.hidden = shown.length > 0;
    table.hidden = shown.length === 0;
    fill(empty, foundIds ? NOTHING_FOUND : NOTHING_YET);
  }

  function drawSoon() {
    drawRequest ||= requestAnimationFrame(() => {
      drawRequest = 0;
      draw();
    });
  }

  function onStatus(analysis) {
    const before = analyses.get(analysis.id);
    analyses.set(analysis.id, analysis);
    if (before && before.status !== analysis.status) {
      announce(`${analysis.slide_name}: ${STATUS_WORDS[analysis.status] ?? analysis.status}`);
    }
    drawSoon();
  }

  function onReady(older) {
    olderButton.hidden = !older || reachedOldest;
    drawSoon();
  }

  const form = h(
    "form",
    {
      role: "search",
      class: "search",
      onsubmit: (event) => {
        event.preventDefault();
        search();
      },
    },
    h("label", { for: "search" }, "Accession number"),
    searchInput,
    h("button", { type: "submit" }, "Search"),
  );
  searchInput.addEventListener("input", () => {
    if (!searchInput.value && foundIds) search();
  });
  const headings = HEADINGS.map((text) => (text ? h("th", { scope: "col" }, text) : h("td")));
  const table = h(
    "table",
    { hidden: true },
    h("caption", { class: "unseen" }, "Analyses, newest first"),
    h("thead", {}, h("tr", {}, headings)),
    body,
  );
  const element = h(
    "section",
    { class: "queue", "aria-labelledby": "queue-title" },
    h("div", { class: "queue-head" }, h("h2", { id: "queue-title" }, "Analyses"), form),
    problem,
    empty,
    table,
    olderButton,
  );
  return {
    element,
    open() {
      stopWatching ??= watchAnalyses({ onStatus, onDeleted: remove, onReady });
    },
    close() {
      stopWatching?.();
      stopWatching = null;
    },
  };
}

function createRow(first, cancelOrDelete) {
  const name = h("th", { scope: "row" });
  const accession = h("td");
  const sent = h("td", { class: "quiet" });
  const status = h("td", { class: "status" });
  const standing = h("div", { class: "quiet" });
  const button = h("button", { type: "button", class: "plain" });
  const cells = [name, accession, sent, status, h("td", { class: "end" }, button)];
  const element = h("tr", { dataset: { id: first.id } }, cells);
  let analysis = first;
  let drawn = "";
  button.addEventListener("click", () => cancelOrDelete(analysis));

  function draw(now) {
    analysis = now;
    const wanted = JSON.stringify([
      now.status,
      now.progress,
      now.seconds_left,
      now.error,
      now.held,
      now.accession_number,
    ]);
    if (wanted === drawn) return;
    drawn = wanted;
    const action = isUnfinished(now) ? "Cancel" : "Delete";
    const urgent = now.priority === "stat" ? h("span", { class: "badge urgent" }, "urgent") : null;
    fill(name, h("a", { href: viewAddress("analysis", now.id) }, now.slide_name), urgent);
    fill(accession, now.accession_number ?? "–");
    fill(sent, dateAndTime(now.created_at));
    fill(button, action);
    button.setAttribute("aria-label", `${action} ${now.slide_name}`);
    fill(status, statusElements(now), standing);
    if (now.status === "succeeded") isSeen.observe(element);
  }

  async function loadStanding() {
    const found = await get(`v1/analyses/${first.id}/standing`).catch(() => null);
    if (found) fill(standing, standingWords(found));
  }

  // Only of those that are looked at: each costs the service a report.
  const isSeen = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) loadStanding();
  });
  return { element, draw };
}

/** What limits a result, in a line. */
function standingWords({ status, figures, undecided, area_sufficient: isEnough, warnings }) {
  const words = [status === "preliminary" ? "not signed" : "signed"];
  if (undecided) words.push(`${number(figures - undecided)} of ${number(figures)} decided`);
  if (!isEnough) words.push("too little tissue for a class of the MAI");
  const others = warnings.filter((code) => code !== "area-insufficient");
  if (others.length) words.push(others.join(", "));
  return words.join(" · ");
}
