// The review: what is counted now, the threshold, the figures as pictures, and a decision on each.

import { hideBanner, showBanner } from "./banner.js";
import { CROP_UM, DECISIONS } from "./contract.js";
import { decidedWords, examinedWords, windowWords } from "./counted_words.js";
import { announce, fill, h, isTyping } from "./dom.js";
import { isInWindow, kindWords, nameOf, saidWords, scoreWords } from "./figures.js";
import { number, placeInUm, plural } from "./format.js";
import { createGallery } from "./gallery.js";
import { may } from "./login.js";
import { LOWEST_CANDIDATE } from "./review.js";
import { requireReviewer } from "./reviewer.js";
import { createThresholdSlider } from "./threshold.js";

const PICTURE_PX = 192;
const SHOWN_KEY = "mitosis-shown"; // of the browser's storage
const isOpen = (figure) => figure.decision === null && !figure.candidate;
const FILTERS = {
  all: { label: "All", fits: () => true },
  open: { label: "Not decided", fits: isOpen },
  work: { label: "To decide, hot-spot first", fits: isOpen },
  accepted: { label: "Accepted", fits: (figure) => figure.decision === "accepted" },
  rejected: { label: "Rejected", fits: (figure) => figure.decision === "rejected" },
  person: { label: "Added", fits: (figure) => figure.origin === "person" },
  candidate: { label: "Below threshold", fits: (figure) => figure.candidate },
  differ: { label: "Readers differ", fits: (figure) => figure.differs }, // once both have signed
};

/**
 * `onSelect(figure, moves)` and `onFigures(figures)` keep the slide in step; `centre()` is the place in the middle of
 * the view; `onAdding(on)`: whether the next click adds a mitosis; `loadAnalysis()` tells whether there is an order.
 */
export function createReviewPanel({ review, report, slideId, onSelect, onFigures, centre, onAdding, loadAnalysis }) {
  const { mpp } = report.slide;
  const { threshold } = report.model;
  const mayDecide = may("review");
  const gallery = createGallery({ pictureOf, onSelect: (figure) => select(figure) });
  let selectedKey = null;
  let filter = Object.hasOwn(FILTERS, localStorage.getItem(SHOWN_KEY)) ? localStorage.getItem(SHOWN_KEY) : "all";
  let isAdding = false;
  let drawnCounts = "";

  function pictureOf({ x, y }) {
    const square = { x: x + 0.5, y: y + 0.5, side: CROP_UM / mpp[0], size: PICTURE_PX };
    return `v1/slides/${slideId}/crop.jpg?${new URLSearchParams(square)}`;
  }

  // Deciding

  async function decide(action) {
    const figure = selectedFigure();
    if (!figure || !mayDecide || !(await requireReviewer())) return;
    if (figure.candidate) {
      if (action === "accept") addCandidate(figure);
      return;
    }
    const decision = DECISIONS[action];
    if (figure.decision !== decision) review.decide([figure], action);
    announce(`${nameOf(figure)} ${decision ?? "not decided"}`);
    selectNext(1, figure);
  }

  async function note() {
    const figure = selectedFigure();
    if (!figure || figure.candidate || !mayDecide || !(await requireReviewer())) return;
    const { askForNote } = await import("./note_dialog.js");
    const text = await askForNote(figure);
    if (text === null) return;
    review.decide([figure], "note", text);
    announce("noted");
  }

  function addCandidate(figure) {
    const [key] = review.add([figure], `candidate, score ${scoreWords(figure)}`);
    announce(`${nameOf(figure)} added`);
    select(review.figures.find((each) => each.key === key));
  }

  async function addAt({ x, y }) {
    if (!mayDecide || !(await requireReviewer())) return;
    setAdding(false);
    const [key] = review.add([{ x: Math.round(x * 10) / 10, y: Math.round(y * 10) / 10 }]);
    announce("mitosis added");
    const figure = review.figures.find((each) => each.key === key);
    if (figure) select(figure, false);
  }

  function setAdding(on) {
    isAdding = on && mayDecide;
    addButton.setAttribute("aria-pressed", String(isAdding));
    onAdding(isAdding);
    if (isAdding) announce("Click a mitosis, or move it under the cross and press Enter");
  }

  async function undo() {
    if (!review.canUndo) return;
    await review.undo();
    announce("undone");
  }

  async function sign() {
    const { askToSign } = await import("./sign_dialog.js");
    if (!(await askToSign(review, report, await loadAnalysis()))) return;
    announce("signed");
    loadAnalysis();
  }

  // Selecting

  const selectedFigure = () => gallery.figures.find((figure) => figure.key === selectedKey) ?? null;

  function select(figure, moves = true) {
    selectedKey = figure?.key ?? null;
    gallery.show(selectedKey);
    drawSelected();
    onSelect(figure ?? null, moves);
  }

  function selectNext(step, from = selectedFigure()) {
    const { figures } = gallery;
    const index = from ? figures.findIndex((figure) => figure.key === from.key) : -1;
    const next = figures[Math.min(figures.length - 1, Math.max(0, index + step))];
    if (next && next.key !== selectedKey) select(next);
  }

  // What would be counted, and what is listed

  /** What would be counted at a threshold: decisions stand, whatever it is. */
  function countedAt(chosen) {
    const { counted } = review;
    const isBelow = (figure) => figure.decision === null && figure.origin === "machine" && figure.score < chosen;
    const removed = chosen > threshold ? counted.filter(isBelow) : [];
    const added = chosen < threshold ? review.candidatesFrom(chosen) : [];
    const left = new Set(removed);
    return { counted: [...counted.filter((figure) => !left.has(figure)), ...added], added, removed };
  }

  /** All figures at the slider's threshold, the best score first; additions have none and come before. */
  function figuresAtThreshold() {
    const chosen = slider.value();
    const shownFrom = chosen < threshold ? chosen : filter === "candidate" ? 0 : Infinity;
    const isShown = ({ score, decision }) =>
      chosen <= threshold || score === null || decision !== null || score >= chosen;
    const figures = [...review.figures.filter(isShown), ...review.candidatesFrom(shownFrom)];
    figures.sort((one, other) => (other.score ?? 2) - (one.score ?? 2) || one.y - other.y);
    return filter === "work" ? inOrderOfWork(figures) : figures;
  }

  /** What is counted in the MAI first, and there what the machine was least sure of. */
  function inOrderOfWork(figures) {
    const { hotspot } = review.server.mai;
    const rank = (figure) => (hotspot && isInWindow(figure, hotspot, mpp) ? 0 : 1);
    const doubt = ({ score }) => Math.abs((score ?? 1) - threshold);
    return figures.toSorted((one, other) => rank(one) - rank(other) || doubt(one) - doubt(other));
  }

  // Drawing

  const summary = h("div", { class: "summary", "aria-live": "polite" });
  const chosenLine = h("div", { class: "chosen" });
  const empty = h("p", { class: "quiet empty" }, "None.");
  const filterSelect = h("select", {
    id: "shown",
    onchange: () => {
      filter = filterSelect.value;
      localStorage.setItem(SHOWN_KEY, filter);
      draw();
    },
  });
  const acceptButton = createKeyButton("Accept", "A", () => decide("accept"), "accept");
  const rejectButton = createKeyButton("Reject", "R", () => decide("reject"), "reject");
  const clearButton = createKeyButton("Clear", "C", () => decide("clear"));
  const undoButton = createKeyButton("Undo", "U", undo);
  const previousButton = createKeyButton("Previous", "P", () => selectNext(-1));
  const nextButton = createKeyButton("Next", "N", () => selectNext(1));
  const noteButton = createKeyButton("Note…", "T", note);
  const addButton = createKeyButton("Add", "M", () => setAdding(!isAdding), "add");
  const signButton = h("button", { type: "button", class: "main sign", onclick: sign }, "Sign…");
  const slider = createThresholdSlider({
    model: report.model,
    lowest: Math.min(LOWEST_CANDIDATE, threshold),
    areaMm2: report.mai.area_mm2,
    mpp,
    mayDecide,
    countedAt,
    onChange: () => draw(),
    add: async (figures, chosen) =>
      (await requireReviewer()) && review.add(figures, `score at least ${number(chosen, 2)}`),
    reject: async (figures, chosen) =>
      (await requireReviewer()) && review.decide(figures, "reject", `score below ${number(chosen, 2)}`),
  });

  function draw() {
    if (!review.server) return;
    selectedKey = selectedKey && review.keyNow(selectedKey);
    if (filter === "differ" && !review.server.second_reading?.disagreements) filter = "all";
    const figures = figuresAtThreshold();
    const listed = figures.filter(FILTERS[filter].fits);
    gallery.setFigures(listed);
    onFigures(figures);
    empty.hidden = listed.length > 0;
    drawSummary();
    drawSelected();
    drawFilter(figures);
    drawButtons();
  }

  function drawButtons() {
    const { status, signed, revision } = review.server;
    const isSigned = signed?.revision === revision;
    for (const button of [acceptButton, rejectButton, clearButton, noteButton, addButton]) button.disabled = !mayDecide;
    undoButton.disabled = !review.canUndo || !mayDecide;
    fill(signButton, isSigned ? "Signed" : status === "preliminary" ? "Sign…" : "Sign again…");
    signButton.disabled = isSigned || !mayDecide || review.pending.length > 0 || Boolean(review.conflict);
  }

  function drawSummary() {
    const { server, pending, figures, counted } = review;
    const numbers = [
      ["total", number(counted.length), " mitoses"],
      ["mai", number(server.mai.count), " MAI"],
      ["density", number(server.counts.per_mm2, 1), " per mm²"],
    ];
    const lost = review.isKept ? "" : "; lost if this page is closed";
    const unsent = ` · ${plural(pending.length, "decision")} not sent yet, not in MAI and per mm²${lost}`;
    const waiting = review.isSending ? " · saving…" : unsent;
    fill(
      summary,
      h(
        "div",
        { class: "numbers" },
        numbers.map(([count, value, unit]) => h("div", {}, h("b", { dataset: { count } }, value), unit)),
      ),
      h("p", { class: "quiet" }, `MAI in ${windowWords(server.mai)}; per mm² of ${examinedWords(report)}`),
      h(
        "p",
        { class: "quiet" },
        decidedWords(figures),
        pending.length ? h("span", { class: "unsent-words" }, waiting) : " · all saved",
      ),
    );
  }

  function drawSelected() {
    const figure = selectedFigure();
    if (!figure) {
      const words = mayDecide ? "Choose a figure, here or on the slide." : "Your key lets you look, but not decide.";
      fill(chosenLine, h("span", { class: "quiet" }, words));
      return;
    }
    fill(
      chosenLine,
      h("strong", {}, nameOf(figure)),
      ` score ${scoreWords(figure)}, ${kindWords(figure)}`,
      figure.reviewer ? ` by ${figure.reviewer}` : "",
      figure.reason ? `: ${figure.reason}` : "",
      figure.candidate ? null : noteButton,
      figure.note ? h("span", { class: "note" }, `Note: ${figure.note}`) : null,
      h("span", { class: "note" }, saidWords(figure, review.server)),
      h("span", { class: "quiet" }, placeInUm(figure.x, figure.y, mpp)),
    );
  }

  function drawFilter(figures) {
    const filters = Object.entries(FILTERS).filter(
      ([name]) => name !== "differ" || review.server.second_reading?.disagreements,
    );
    const counts = filters.map(([name, { fits }]) =>
      name === "candidate" ? review.candidatesFrom(0).length : figures.filter(fits).length,
    );
    if (counts.join() === drawnCounts) return; // else a list that is open would close
    drawnCounts = counts.join();
    const options = filters.map(([value, { label }], index) =>
      h("option", { value, selected: value === filter }, `${label} (${number(counts[index])})`),
    );
    fill(filterSelect, options);
    filterSelect.value = filter;
  }

  // What happens to the review, and keys

  function onChange() {
    slider.draw(); // draws the rest
    const { problem, pending } = review;
    if (problem && pending.length && problem.status !== 401 && problem.status !== 0) {
      const text = `Your decisions could not be sent: ${problem.message}`;
      showBanner("unsent", text, { kind: "bad", actions: [["Try again", () => review.flush()]] });
    } else hideBanner("unsent");
  }

  review.addEventListener("change", onChange);
  const showConflict = async () => (await import("./conflict_banner.js")).showConflict(review);
  review.addEventListener("conflict", showConflict);
  review.addEventListener("overtaken", () =>
    showBanner("overtaken", "Somebody else has changed this review; what you see is the newest.", { fades: true }),
  );
  review.addEventListener("refused", () =>
    showBanner("refused", `A decision was refused: ${review.refused}`, { kind: "bad", fades: true }),
  );

  function onKey(event) {
    if (isTyping(event) || event.repeat) return;
    const isLetter = event.key.length === 1;
    const act = {
      a: () => decide("accept"),
      r: () => decide("reject"),
      c: () => decide("clear"),
      u: undo,
      n: () => selectNext(1),
      p: () => selectNext(-1),
      t: note,
      m: () => setAdding(!isAdding),
      Escape: () => setAdding(false),
      Enter: () => isAdding && !event.target.closest("button, a, summary") && addAt(centre()),
    }[isLetter ? event.key.toLowerCase() : event.key];
    if (!act) return;
    act();
    if (isLetter) event.preventDefault();
  }
  document.addEventListener("keydown", onKey);

  const deciding = [acceptButton, rejectButton, clearButton, undoButton];
  const element = h(
    "div",
    { class: "review" },
    summary,
    slider.element,
    h("div", { class: "listing" }, h("label", { for: "shown" }, "Show"), filterSelect),
    gallery.element,
    empty,
    chosenLine,
    h("div", { class: "actions", role: "group", "aria-label": "Decide" }, [
      ...deciding,
      previousButton,
      nextButton,
      addButton,
      signButton,
    ]),
  );
  if (review.conflict) showConflict();

  return {
    element,
    draw: onChange,
    /** The slide was clicked: on a figure, or at a place (level-0 px from the corner) where a mitosis may be added. */
    clicked(figure, place) {
      if (isAdding) addAt({ x: place.x - 0.5, y: place.y - 0.5 });
      else if (figure) select(figure, false);
    },
    selectKey(key) {
      const figure = gallery.figures.find((each) => each.key === key);
      if (figure) select(figure, false);
    },
    get selectedKey() {
      return selectedKey;
    },
    close() {
      document.removeEventListener("keydown", onKey);
      gallery.close();
      hideBanner("conflict");
      hideBanner("unsent");
    },
  };
}

function createKeyButton(text, key, onclick, kind = "") {
  const properties = { type: "button", class: kind, onclick, title: `${text} (${key})`, "aria-keyshortcuts": key };
  return h("button", properties, text, h("kbd", { "aria-hidden": "true" }, key));
}
