// The review: what is counted now, the threshold, the figures as pictures, and a decision on each.

import { tell, untell } from "./banner.js";
import { fill, h, isTyping, say } from "./dom.js";
import { number, plural } from "./format.js";
import { CROP_UM, gallery, nameOf, scoreOf, wordsOf } from "./gallery.js";
import { may } from "./login.js";
import { signing, whoReviews } from "./person.js";
import { thresholdSlider } from "./threshold.js";

const SHOWN = {
  all: "All",
  open: "Not decided",
  accepted: "Accepted",
  rejected: "Rejected",
  person: "Added",
  candidate: "Below threshold",
};

/** `onSelect(item)`, `onItems(items)` keep the slide in step; `centre()` is what is looked at; `onAdding(on)`. */
export function reviewPanel({ review, report, slideId, onSelect, onItems, centre, onAdding }) {
  const mpp = report.slide.mpp;
  const canDecide = may("review");
  const side = CROP_UM / mpp[0];
  const pictures = gallery({
    pictureOf: (item) =>
      `v1/slides/${slideId}/crop.jpg?${new URLSearchParams({ x: item.x + 0.5, y: item.y + 0.5, side, size: 192 })}`,
    onSelect: (item) => select(item),
  });
  let selected = null;
  let shown = "all";
  let adding = false;

  // What is decided

  async function decide(action) {
    const item = current();
    if (!item || !canDecide || !(await whoReviews())) return;
    if (item.candidate) {
      if (action !== "accept") return;
      const [key] = review.add([item], `candidate, score ${number(item.score, 3)}`);
      say(`${nameOf(item)} added`);
      return select(review.items.find((each) => each.key === key));
    }
    const already = { accept: "accepted", reject: "rejected" }[action];
    if (item.decision !== already) review.decide([item], action);
    say(`${nameOf(item)} ${already ?? "undecided"}`);
    next(1, item);
  }

  async function add(place) {
    if (!canDecide || !(await whoReviews())) return;
    setAdding(false);
    const [key] = review.add([{ x: Math.round(place.x * 10) / 10, y: Math.round(place.y * 10) / 10 }]);
    say("mitosis added");
    const item = review.items.find((each) => each.key === key);
    if (item) select(item, false);
  }

  function setAdding(on) {
    adding = on && canDecide;
    addButton.setAttribute("aria-pressed", String(adding));
    onAdding(adding);
    if (adding) say("Click a mitosis, or move it under the cross and press Enter");
  }

  async function undo() {
    if (!review.canUndo) return;
    await review.undo();
    say("taken back");
  }

  // What is looked at

  const current = () => pictures.items.find((item) => item.key === selected) ?? null;

  function select(item, go = true) {
    selected = item?.key ?? null;
    pictures.show(selected);
    drawSelected();
    onSelect(item ?? null, go);
  }

  function next(step, from = current()) {
    const items = pictures.items;
    if (!items.length) return;
    const place = from ? items.findIndex((item) => item.key === from.key) : -1;
    const found = items[Math.min(items.length - 1, Math.max(0, place + step))];
    if (found && found.key !== selected) select(found);
  }

  // Drawing

  const summary = h("div", { class: "summary", "aria-live": "polite" });
  const chosen = h("div", { class: "chosen" });
  const filter = h("select", { id: "shown", onchange: () => ((shown = filter.value), draw()) });
  const button = (text, key, act, kind = "") =>
    h(
      "button",
      { type: "button", class: kind, onclick: act, title: `${text} (${key})`, "aria-keyshortcuts": key },
      text,
      h("kbd", { "aria-hidden": "true" }, key),
    );
  const acceptButton = button("Accept", "A", () => decide("accept"), "accept");
  const rejectButton = button("Reject", "R", () => decide("reject"), "reject");
  const clearButton = button("Clear", "C", () => decide("clear"));
  const undoButton = button("Undo", "U", undo);
  const addButton = button("Add", "M", () => setAdding(!adding), "add");
  const previousButton = button("Previous", "P", () => next(-1));
  const nextButton = button("Next", "N", () => next(1));
  const signButton = h("button", { type: "button", class: "main sign", onclick: () => sign() }, "Sign…");
  const slider = thresholdSlider({
    threshold: report.model.threshold,
    lowest: Math.min(0.3, report.model.threshold),
    um: { x: mpp[0], y: mpp[1], area: report.mai.area_mm2, radius: Math.sqrt((report.mai.area_mm2 * 1e6) / Math.PI) },
    may: canDecide,
    of: atThreshold,
    onChange: () => draw(),
    accept: async (items, at) => (await whoReviews()) && review.add(items, `score at least ${number(at, 2)}`),
    reject: async (items, at) => (await whoReviews()) && review.decide(items, "reject", `score below ${number(at, 2)}`),
  });

  /** What would be counted: decisions stand, whatever the threshold. */
  function atThreshold(at) {
    const threshold = report.model.threshold;
    const items = review.counted;
    const less =
      at > threshold
        ? items.filter((item) => item.decision === null && item.origin === "machine" && item.score < at)
        : [];
    const more = at < threshold ? review.candidatesFrom(at, mpp) : [];
    const left = new Set(less);
    return { counted: [...items.filter((item) => !left.has(item)), ...more], more, less };
  }

  function listed() {
    const at = slider.value;
    const threshold = report.model.threshold;
    const candidates =
      at < threshold - 0.004
        ? review.candidatesFrom(at, mpp)
        : shown === "candidate"
          ? review.candidatesFrom(0, mpp)
          : [];
    const fits = {
      all: () => true,
      open: (item) => item.decision === null && !item.candidate,
      accepted: (item) => item.decision === "accepted",
      rejected: (item) => item.decision === "rejected",
      person: (item) => item.origin === "person",
      candidate: (item) => item.candidate,
    }[shown];
    const above = (item) => at <= threshold || item.score === null || item.score >= at || item.decision !== null;
    const found = [...review.items.filter(above), ...candidates];
    found.sort((one, other) => (other.score ?? 2) - (one.score ?? 2) || one.y - other.y);
    return { all: found, seen: found.filter(fits) };
  }

  function draw() {
    if (!review.server) return;
    selected = selected && review.keyNow(selected);
    const { all, seen } = listed();
    pictures.set(seen);
    onItems(all);
    drawSummary();
    drawSelected();
    drawFilter(all);
    empty.hidden = seen.length > 0;
    undoButton.disabled = !review.canUndo || !canDecide;
    for (const each of [acceptButton, rejectButton, clearButton, addButton]) each.disabled = !canDecide;
    signButton.disabled = !canDecide || review.pending.length > 0 || Boolean(review.conflict);
    const status = review.server.status;
    const current = review.server.signed?.revision === review.server.revision;
    fill(signButton, current ? "Signed" : status === "preliminary" ? "Sign…" : "Sign again…");
    if (current) signButton.disabled = true;
  }

  function drawSummary() {
    const { server, pending } = review;
    const { mai } = server;
    const counted = review.counted.length;
    const decided = review.items.filter((item) => item.decision !== null).length;
    fill(
      summary,
      h(
        "div",
        { class: "numbers" },
        h("div", {}, h("b", { dataset: { count: "total" } }, number(counted)), " mitoses"),
        h("div", {}, h("b", { dataset: { count: "mai" } }, number(mai.count)), " MAI"),
        h("div", {}, h("b", { dataset: { count: "density" } }, number(server.counts.per_mm2, 1)), " per mm²"),
      ),
      h(
        "p",
        { class: "quiet" },
        `${number(decided)} of ${number(review.items.length)} decided`,
        pending.length
          ? h(
              "span",
              { class: "unsent-words" },
              review.sending ? " · saving…" : ` · ${plural(pending.length, "decision")} not sent yet`,
            )
          : " · all saved",
      ),
    );
  }

  function drawSelected() {
    const item = current();
    fill(
      chosen,
      item
        ? [
            h("strong", {}, nameOf(item)),
            ` score ${scoreOf(item)}, ${wordsOf(item)}`,
            item.reviewer ? ` by ${item.reviewer}` : "",
            item.reason ? `: ${item.reason}` : "",
            h("span", { class: "quiet" }, `${(item.x * mpp[0]).toFixed(1)}, ${(item.y * mpp[1]).toFixed(1)} µm`),
          ]
        : h(
            "span",
            { class: "quiet" },
            canDecide ? "Choose a figure, here or on the slide." : "Your key may look, not decide.",
          ),
    );
  }

  let counts = "";
  function drawFilter(all) {
    const of = {
      all: all.length,
      open: all.filter((item) => item.decision === null && !item.candidate).length,
      accepted: all.filter((item) => item.decision === "accepted").length,
      rejected: all.filter((item) => item.decision === "rejected").length,
      person: all.filter((item) => item.origin === "person").length,
      candidate: review.candidatesFrom(0, mpp).length,
    };
    if (JSON.stringify(of) === counts) return;
    counts = JSON.stringify(of);
    fill(
      filter,
      Object.entries(SHOWN).map(([value, text]) =>
        h("option", { value, selected: value === shown }, `${text} (${number(of[value])})`),
      ),
    );
    filter.value = shown;
  }

  async function sign() {
    const { mai, counts: all } = review.server;
    const words = `${plural(all.total, "mitosis", "mitoses")}, MAI ${number(mai.count)} in ${number(mai.area_mm2, 2)} mm².`;
    if (await signing(review, words)) say("signed");
  }

  function drawConflict() {
    const { conflict, pending } = review;
    if (!conflict) return untell("conflict");
    const who = conflict.by.length ? conflict.by.join(" and ") : "Somebody else";
    const mine = plural(pending.length, "decision");
    if (!conflict.loaded) {
      tell(
        "conflict",
        `${who} has changed this review meanwhile. Your ${mine} ${pending.length === 1 ? "is" : "are"} kept and not sent.`,
        {
          kind: "bad",
          actions: [
            ["Show theirs", () => review.loadTheirs()],
            ["Discard mine", () => review.discardMine()],
          ],
        },
      );
      return;
    }
    const differ = conflict.differ.length ? ` They decided otherwise on no. ${conflict.differ.join(", ")}.` : "";
    tell("conflict", `This is the review of ${who}, with your ${mine} on it, not sent.${differ}`, {
      kind: "bad",
      actions: [
        ["Send mine", () => review.sendMine()],
        ["Discard mine", () => review.discardMine()],
      ],
    });
  }

  const onChange = () => {
    slider.draw(); // draws the rest
    if (review.problem && review.pending.length && review.problem.status !== 401 && review.problem.status !== 0) {
      tell("unsent", `Your decisions could not be sent: ${review.problem.message}`, {
        kind: "bad",
        actions: [["Try again", () => review.flush()]],
      });
    } else untell("unsent");
  };
  review.addEventListener("change", onChange);
  review.addEventListener("conflict", drawConflict);
  review.addEventListener("overtaken", () =>
    tell("overtaken", "Somebody else has changed this review; what you see is the newest.", { fades: true }),
  );
  review.addEventListener("refused", () =>
    tell("refused", `A decision was refused: ${review.refused}`, { kind: "bad", fades: true }),
  );

  function onKey(event) {
    if (isTyping(event) || event.repeat) return;
    const act = {
      a: () => decide("accept"),
      r: () => decide("reject"),
      c: () => decide("clear"),
      u: undo,
      n: () => next(1),
      p: () => next(-1),
      m: () => setAdding(!adding),
      Escape: () => setAdding(false),
      Enter: () => adding && !event.target.closest("button, a, summary") && add(centre()),
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    act();
    if (event.key.length === 1) event.preventDefault();
  }
  document.addEventListener("keydown", onKey);

  const empty = h("p", { class: "quiet empty" }, "None.");
  const element = h(
    "div",
    { class: "review" },
    summary,
    slider.element,
    h("div", { class: "listing" }, h("label", { for: "shown" }, "Show"), filter),
    pictures.element,
    empty,
    chosen,
    h(
      "div",
      { class: "actions", role: "group", "aria-label": "Decide" },
      acceptButton,
      rejectButton,
      clearButton,
      undoButton,
      previousButton,
      nextButton,
      addButton,
      signButton,
    ),
  );
  if (review.conflict) drawConflict();

  return {
    element,
    draw: onChange,
    select,
    /** The slide was clicked: an item, or a place where a mitosis is to be added. */
    clicked(item, place) {
      if (adding) add({ x: place.x - 0.5, y: place.y - 0.5 });
      else if (item) select(item, false);
    },
    selectKey(key) {
      const item = pictures.items.find((each) => each.key === key);
      if (item) select(item, false);
    },
    get selected() {
      return selected;
    },
    close() {
      document.removeEventListener("keydown", onKey);
      pictures.close();
      untell("conflict");
      untell("unsent");
    },
  };
}
