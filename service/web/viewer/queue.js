// The list of analyses, live: progress, errors in plain words, cancel and delete, search by accession number.

import { viewAddress } from "./address.js";
import { call, get } from "./api.js";
import { fill, h, say } from "./dom.js";
import { watch } from "./events.js";
import { duration, number, when } from "./format.js";
import { advice } from "./problems.js";

const LIVE = ["queued", "running"];

export function queue() {
  const analyses = new Map(); // newest last
  const rows = new Map();
  const body = h("tbody");
  const empty = h("p", { class: "quiet empty" }, "Nothing yet. A slide that is sent appears here.");
  const search = h("input", { id: "search", type: "search", placeholder: "H26-…", autocomplete: "off" });
  const older = h("button", { type: "button", hidden: true, onclick: () => more() }, "Older analyses");
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  let found = null; // ids that a search gave
  let cursor = null;

  const form = h(
    "form",
    { role: "search", class: "search", onsubmit: (event) => (event.preventDefault(), look()) },
    h("label", { for: "search" }, "Accession number"),
    search,
    h("button", { type: "submit" }, "Search"),
  );
  search.addEventListener("input", () => {
    if (!search.value && found) look();
  });

  async function look() {
    const wanted = search.value.trim();
    if (!wanted) {
      found = null;
      return draw();
    }
    try {
      const { analyses: hits } = await get(
        `v1/analyses?${new URLSearchParams({ accession_number: wanted, limit: 200 })}`,
      );
      found = new Set(hits.map((each) => each.id));
      for (const each of hits.reverse()) analyses.set(each.id, each);
      say(`${hits.length} found`);
      draw();
    } catch (error) {
      fail(error);
    }
  }

  async function more() {
    let known = true;
    do {
      const page = await get(`v1/analyses?${new URLSearchParams({ limit: 100, ...(cursor ? { cursor } : {}) })}`);
      cursor = page.next_cursor;
      known = page.analyses.every((each) => analyses.has(each.id));
      for (const each of page.analyses) analyses.set(each.id, each);
    } while (known && cursor);
    older.hidden = !cursor;
    draw();
  }

  function fail(error) {
    fill(problem, advice(error.code), " ", h("span", { class: "quiet" }, error.message));
    problem.hidden = false;
  }

  async function remove(analysis) {
    const live = LIVE.includes(analysis.status);
    if (!live && !confirm(`Delete the analysis of ${analysis.slide_name} with its result and review?`)) return;
    problem.hidden = true;
    try {
      await call(`v1/analyses/${analysis.id}`, { method: "DELETE" });
      if (!live) forget(analysis.id);
      say(live ? "cancelled" : "deleted");
    } catch (error) {
      fail(error);
    }
  }

  function forget(id) {
    analyses.delete(id);
    rows.get(id)?.element.remove();
    rows.delete(id);
    draw();
  }

  function draw() {
    const shown = [...analyses.values()].filter((each) => !found || found.has(each.id));
    shown.sort((one, other) => (one.created_at < other.created_at ? 1 : -1));
    for (const analysis of shown) {
      const known = rows.get(analysis.id) ?? row(analysis, remove);
      rows.set(analysis.id, known);
      known.draw(analysis);
    }
    const wanted = shown.map((each) => rows.get(each.id).element);
    if (wanted.length !== body.children.length || wanted.some((each, place) => body.children[place] !== each))
      fill(body, wanted);
    empty.hidden = shown.length > 0;
    table.hidden = shown.length === 0;
    fill(empty, found ? "No analysis has this accession number." : "Nothing yet. A slide that is sent appears here.");
  }

  let drawing = 0;
  const soon = () => {
    drawing ||= requestAnimationFrame(() => {
      drawing = 0;
      draw();
    });
  };
  let stop = null;
  const open = () =>
    (stop ??= watch({
      onStatus: (analysis) => {
        const before = analyses.get(analysis.id);
        analyses.set(analysis.id, analysis);
        if (before && before.status !== analysis.status) say(`${analysis.slide_name}: ${analysis.status}`);
        soon();
      },
      onDeleted: forget,
      onReady: () => {
        older.hidden = analyses.size < 100 || cursor !== null;
        soon();
      },
    }));
  const close = () => {
    stop?.();
    stop = null;
  };

  const headings = ["Slide", "Accession", "Sent", "Status", ""];
  const table = h(
    "table",
    { hidden: true },
    h("caption", { class: "unseen" }, "Analyses, newest first"),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        headings.map((text) => (text ? h("th", { scope: "col" }, text) : h("td"))),
      ),
    ),
    body,
  );
  const element = h(
    "section",
    { class: "queue", "aria-labelledby": "queue-title" },
    h("div", { class: "queue-head" }, h("h2", { id: "queue-title" }, "Analyses"), form),
    problem,
    empty,
    table,
    older,
  );
  return { element, open, close };
}

function row(first, remove) {
  const status = h("td", { class: "status" });
  const action = h("button", { type: "button", class: "plain" });
  const name = h("th", { scope: "row" });
  const cells = { accession: h("td"), sent: h("td", { class: "quiet" }) };
  const element = h(
    "tr",
    { dataset: { id: first.id } },
    name,
    cells.accession,
    cells.sent,
    status,
    h("td", { class: "end" }, action),
  );
  let shown = "";
  let analysis = first;
  action.addEventListener("click", () => remove(analysis));

  function draw(now) {
    analysis = now;
    const text = JSON.stringify([now.status, now.progress, now.seconds_left, now.error]);
    if (text === shown) return;
    shown = text;
    const live = LIVE.includes(now.status);
    const opens = viewAddress("analysis", now.id);
    fill(
      name,
      h("a", { href: opens }, now.slide_name),
      now.priority === "stat" ? h("span", { class: "badge urgent" }, "urgent") : null,
    );
    fill(cells.accession, now.accession_number ?? "–");
    fill(cells.sent, when(now.created_at));
    fill(action, live ? "Cancel" : "Delete");
    action.setAttribute("aria-label", `${live ? "Cancel" : "Delete"} ${now.slide_name}`);
    fill(status, standing(now));
  }
  return { element, draw };
}

/** How an analysis stands, in words. */
export function standing(analysis) {
  const { status, progress, seconds_left: left, error } = analysis;
  if (status === "running") {
    const done = `${number(100 * progress)} %`;
    return [
      h("progress", { max: 1, value: progress, "aria-label": `Analysis of ${analysis.slide_name}` }),
      h("span", { class: "quiet" }, left === null ? done : `${done}, about ${duration(left)} left`),
    ];
  }
  if (status === "failed") {
    return h(
      "div",
      { class: "problem" },
      h("strong", {}, `Failed. ${advice(error?.code)}`),
      h("span", { class: "quiet" }, error?.detail ?? ""),
    );
  }
  return h(
    "span",
    { class: `badge ${status}` },
    { queued: "waiting", succeeded: "done", cancelled: "cancelled" }[status] ?? status,
  );
}
