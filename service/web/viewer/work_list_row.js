// A row of the work list: what an analysis is of, how it stands, what it found, and what limits that.

import { viewAddress } from "./address.js";
import { statusElements } from "./analysis_status.js";
import { call } from "./api.js";
import { SIGNED_WORDS, UNFINISHED } from "./contract.js";
import { announce, fill, h } from "./dom.js";
import { dateAndTime, number } from "./format.js";
import { may } from "./login.js";

const CELLS = [
  ["accession", "Accession"],
  ["mai", "MAI"],
  ["mitoses", "Mitoses"],
  ["standing", "Standing"],
  ["reviewer", "Reviewer"],
  ["age", "Age"],
]; // with what a card calls them, where the window is narrow
const READ_BY_TWO = [
  "none of two readers has signed",
  "one of two readers has signed",
  "both readers have signed, not their consensus",
  "both readers and their consensus are signed",
]; // by how many readings are signed
const THUMBNAIL_LEVEL = 8; // of a Deep Zoom image: one tile, at most 256 px a side

/** The address of a small picture of a slide. */
export const thumbnailOf = (slideId) => `v1/slides/${slideId}/tiles_files/${THUMBNAIL_LEVEL}/0_0.jpg`;

/** `onGone(id)`: it was deleted; `showSlide(analysis)` shows all analyses of its slide. */
export function createRow({ onProblem, onGone, showSlide }) {
  const picture = h("img", { class: "thumbnail", alt: "", loading: "lazy", width: 64, height: 48 });
  picture.addEventListener("error", () => picture.classList.add("missing"));
  const title = h("div", { class: "name" });
  const cells = Object.fromEntries(CELLS.map(([name, label]) => [name, h("td", { class: name, dataset: { label } })]));
  const button = h("button", { type: "button", class: "plain", onclick: cancelOrDelete });
  const element = h(
    "tr",
    {},
    h("th", { scope: "row" }, h("div", { class: "what" }, picture, title)),
    Object.values(cells),
    h("td", { class: "end" }, may("submit") ? button : null),
  );
  let analysis = null;
  let [drawn, titled] = ["", ""];

  async function cancelOrDelete() {
    const { id, slide_name: slideName } = analysis;
    const cancels = UNFINISHED.includes(analysis.status);
    if (!cancels && !confirm(`Delete the analysis of ${slideName} with its result and review?`)) return;
    button.disabled = true;
    try {
      await call(`v1/analyses/${id}${cancels ? "?keep=true" : ""}`, { method: "DELETE" });
      announce(cancels ? "cancelled" : "deleted");
      if (!cancels) onGone(id);
    } catch (error) {
      onProblem(error);
    }
    button.disabled = false;
  }

  function draw(now, classes) {
    analysis = now;
    const wanted = JSON.stringify([now, classes, age(now.created_at)]);
    if (wanted === drawn) return;
    drawn = wanted;
    const { summary } = now;
    element.dataset.id = now.id;
    const address = thumbnailOf(now.slide_id);
    if (picture.getAttribute("src") !== address) picture.setAttribute("src", address);
    const action = UNFINISHED.includes(now.status) ? "Cancel" : "Delete";
    drawTitle(now);
    fill(cells.accession, now.accession_number ?? "–");
    fill(cells.mai, summary ? maiWords(summary, classes) : "–");
    fill(cells.mitoses, summary ? number(summary.total) : "–");
    fill(cells.standing, standing(now));
    fill(cells.reviewer, summary?.reviewer ?? "–");
    fill(cells.age, h("time", { datetime: now.created_at, title: dateAndTime(now.created_at) }, age(now.created_at)));
    fill(button, action);
    button.setAttribute("aria-label", `${action} ${now.slide_name}`);
  }

  /** Only where it has changed: a link that is made anew loses the keyboard's focus. */
  function drawTitle(now) {
    const { id, slide_name: slideName, priority, request, of_slide: ofSlide } = now;
    const wanted = JSON.stringify([id, slideName, priority, request, ofSlide]);
    if (wanted === titled) return;
    titled = wanted;
    const onclick = () => showSlide(now);
    fill(
      title,
      h("a", { href: viewAddress("analysis", id) }, slideName),
      priority === "stat" ? h("span", { class: "badge urgent" }, "urgent") : null,
      parameters(request),
      ofSlide > 1
        ? h("button", { type: "button", class: "plain of-slide", onclick }, `${number(ofSlide)} of this slide`)
        : null,
    );
  }

  return {
    element,
    draw,
    get analysis() {
      return analysis;
    },
  };
}

/** What was asked for that is not the default: it tells the analyses of a slide apart. */
function parameters({ region, exclude, threshold, mpp }) {
  const words = [
    region && "region",
    exclude && "an area left out",
    threshold && `threshold ${threshold}`,
    mpp && `${mpp} µm per pixel`,
  ].filter(Boolean);
  return words.length ? h("span", { class: "quiet" }, words.join(", ")) : null;
}

function maiWords({ mai, high_risk: isHighRisk, near_cutoff: isNear }, classes) {
  const ofClass = isHighRisk === null ? "no class" : (classes[Number(isHighRisk)] ?? "");
  return [h("b", {}, number(mai)), h("span", { class: "quiet" }, ` ${ofClass}${isNear ? ", near the cut-off" : ""}`)];
}

/** How an analysis stands: signed, open or held, and what limits it; or why there is no result. */
function standing(analysis) {
  const { summary, held } = analysis;
  if (!summary) return statusElements(analysis);
  const { status, figures, undecided } = summary;
  const words = [
    summary.changed && "changed since then: these counts are not signed",
    summary.signed_readings && READ_BY_TWO[summary.signed_readings.length],
    undecided > 0 && `${number(figures - undecided)} of ${number(figures)} decided`,
    !summary.area_sufficient && "too little tissue for a class of the MAI",
    summary.warnings.filter((code) => code !== "area-insufficient").join(", "),
  ].filter(Boolean);
  return [
    h("span", { class: `badge ${status}` }, SIGNED_WORDS[status] ?? status),
    held && statusElements(analysis).slice(1),
    h("div", { class: "quiet" }, words.join(" · ")),
  ];
}

/** How long ago a time is. */
function age(text) {
  const hours = (Date.now() - Date.parse(text)) / 3600000;
  if (hours < 1) return `${Math.max(0, Math.round(60 * hours))} min`;
  return hours < 48 ? `${Math.round(hours)} h` : `${Math.round(hours / 24)} d`;
}
