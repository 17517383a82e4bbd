// The figures as pictures of 64 um, sorted by score. Only the rows that are seen are in the page, so 5,000 are no burden.

import { fill, h } from "./dom.js";
import { number } from "./format.js";
import { kindOf } from "./overlay.js";

export const CROP_UM = 64;
const [ROW_PX, LEAST_COLUMN_PX] = [138, 104];
const WORDS = {
  open: "not decided",
  accepted: "accepted",
  rejected: "rejected",
  added: "added",
  candidate: "below threshold",
};

export const wordsOf = (item) => WORDS[kindOf(item)];
export const scoreOf = (item) => (item.score === null ? "by hand" : number(item.score, 3));
export const nameOf = (item) =>
  item.candidate ? `Candidate ${item.id}` : item.id === null ? "New mitosis" : `Mitosis ${item.id}`;

/** `pictureOf(item)` gives the address of a crop; `onSelect(item)` is called by mouse and keyboard. */
export function gallery({ pictureOf, onSelect }) {
  const inner = h("div", { class: "sheet", role: "presentation" });
  const element = h(
    "div",
    { class: "gallery", role: "listbox", tabindex: "0", "aria-label": "Figures, best score first" },
    inner,
  );
  const cells = new Map(); // by key
  let items = [];
  let selected = null;
  let columns = 3;

  function draw() {
    columns = Math.max(2, Math.floor(element.clientWidth / LEAST_COLUMN_PX));
    inner.style.height = `${Math.ceil(items.length / columns) * ROW_PX}px`;
    const first = Math.max(0, Math.floor(element.scrollTop / ROW_PX) - 1) * columns;
    const last = Math.ceil((element.scrollTop + element.clientHeight) / ROW_PX + 1) * columns;
    const seen = items.slice(first, last);
    const keys = new Set(seen.map((item) => item.key));
    for (const [key, cell] of cells) {
      if (keys.has(key)) continue;
      cell.element.remove();
      cells.delete(key);
    }
    seen.forEach((item, offset) => {
      const place = first + offset;
      let cell = cells.get(item.key);
      if (!cell) {
        cell = figure(item, pictureOf);
        cell.element.addEventListener("click", () => onSelect(cell.item));
        cells.set(item.key, cell);
        inner.append(cell.element);
      }
      cell.draw(item, place, items.length, item.key === selected);
      cell.element.style.width = `${100 / columns}%`;
      cell.element.style.transform = `translate(${100 * (place % columns)}%, ${Math.floor(place / columns) * ROW_PX}px)`;
    });
    const active = cells.get(selected);
    if (active) element.setAttribute("aria-activedescendant", active.element.id);
    else element.removeAttribute("aria-activedescendant");
  }

  function show(key) {
    selected = key;
    const place = items.findIndex((item) => item.key === key);
    if (place >= 0) {
      const above = Math.floor(place / columns) * ROW_PX;
      if (above < element.scrollTop) element.scrollTop = above;
      else if (above + ROW_PX > element.scrollTop + element.clientHeight)
        element.scrollTop = above + ROW_PX - element.clientHeight;
    }
    draw();
  }

  element.addEventListener("scroll", draw);
  element.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    const end = { Home: 0, End: items.length - 1 }[event.key];
    if (step === undefined && end === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const place = items.findIndex((item) => item.key === selected);
    const next = end ?? Math.min(items.length - 1, Math.max(0, place + step));
    if (items[next]) onSelect(items[next]);
  });
  const watching = new ResizeObserver(draw);
  watching.observe(element);
  return {
    element,
    set(given) {
      items = given;
      draw();
    },
    get items() {
      return items;
    },
    show,
    close: () => watching.disconnect(),
  };
}

function figure(first, pictureOf) {
  const picture = h("img", {
    alt: "",
    width: 96,
    height: 96,
    decoding: "async",
    draggable: false,
    src: pictureOf(first),
  });
  picture.addEventListener("error", () => picture.classList.add("missing"));
  const score = h("span", { class: "score" });
  const word = h("span", { class: "decision" });
  const element = h(
    "div",
    { class: "figure", role: "option", id: `figure-${first.key}` },
    h("div", { class: "frame" }, picture),
    h("div", { class: "caption" }, score, word),
  );
  const cell = { element, item: first };
  cell.draw = (item, place, total, isSelected) => {
    cell.item = item;
    element.dataset.kind = kindOf(item);
    element.dataset.key = item.key;
    element.classList.toggle("unsent", Boolean(item.unsent));
    element.setAttribute("aria-selected", String(isSelected));
    element.setAttribute("aria-posinset", place + 1);
    element.setAttribute("aria-setsize", total);
    element.setAttribute(
      "aria-label",
      `${nameOf(item)}, score ${scoreOf(item)}, ${wordsOf(item)}${item.unsent ? ", not sent yet" : ""}`,
    );
    fill(score, scoreOf(item));
    fill(word, wordsOf(item));
  };
  return cell;
}
