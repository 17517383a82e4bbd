// The figures as pictures, in the order that they are given. Only the visible rows are in the page, so that 5,000 figures are no
// burden.

import { fill, h } from "./dom.js";
import { kindOf, kindWords, nameOf, scoreWords } from "./figures.js";

const [ROW_PX, LEAST_COLUMN_PX] = [138, 104]; // the rows' height as in review.css

/** `pictureOf(figure)` gives the address of its picture; `onSelect(figure)` is called by mouse and keyboard. */
export function createGallery({ pictureOf, onSelect }) {
  const sheet = h("div", { class: "sheet", role: "presentation" });
  const element = h("div", { class: "gallery", role: "listbox", tabindex: "0", "aria-label": "Figures" }, sheet);
  const cells = new Map(); // by the figure's key
  let figures = [];
  let selectedKey = null;
  let columns = 3;

  function draw() {
    columns = Math.max(2, Math.floor(element.clientWidth / LEAST_COLUMN_PX));
    sheet.style.height = `${Math.ceil(figures.length / columns) * ROW_PX}px`;
    const first = Math.max(0, Math.floor(element.scrollTop / ROW_PX) - 1) * columns;
    const last = Math.ceil((element.scrollTop + element.clientHeight) / ROW_PX + 1) * columns;
    const visible = figures.slice(first, last);
    const keys = new Set(visible.map((figure) => figure.key));
    for (const [key, cell] of cells) {
      if (keys.has(key)) continue;
      cell.element.remove();
      cells.delete(key);
    }
    visible.forEach((figure, offset) => drawCell(figure, first + offset));
    const active = cells.get(selectedKey);
    if (active) element.setAttribute("aria-activedescendant", active.element.id);
    else element.removeAttribute("aria-activedescendant");
  }

  function drawCell(figure, index) {
    let cell = cells.get(figure.key);
    if (!cell) {
      cell = createCell(figure, pictureOf(figure));
      const added = cell;
      cell.element.addEventListener("click", () => onSelect(added.figure));
      cells.set(figure.key, cell);
      sheet.append(cell.element);
    }
    cell.draw(figure, index, figures.length, figure.key === selectedKey);
    const [column, row] = [index % columns, Math.floor(index / columns)];
    cell.element.style.width = `${100 / columns}%`;
    cell.element.style.transform = `translate(${100 * column}%, ${row * ROW_PX}px)`;
  }

  function show(key) {
    selectedKey = key;
    const index = figures.findIndex((figure) => figure.key === key);
    if (index >= 0) {
      const top = Math.floor(index / columns) * ROW_PX;
      const bottom = top + ROW_PX;
      if (top < element.scrollTop) element.scrollTop = top;
      else if (bottom > element.scrollTop + element.clientHeight) element.scrollTop = bottom - element.clientHeight;
    }
    draw();
  }

  element.addEventListener("scroll", draw);
  element.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    const end = { Home: 0, End: figures.length - 1 }[event.key];
    if (step === undefined && end === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const index = figures.findIndex((figure) => figure.key === selectedKey);
    const next = end ?? Math.min(figures.length - 1, Math.max(0, index + step));
    if (figures[next]) onSelect(figures[next]);
  });
  const resizing = new ResizeObserver(draw);
  resizing.observe(element);
  return {
    element,
    setFigures(given) {
      figures = given;
      draw();
    },
    get figures() {
      return figures;
    },
    /** Select the figure with a key and scroll to it; null selects none. */
    show,
    close: () => resizing.disconnect(),
  };
}

function createCell(first, address) {
  const picture = h("img", { alt: "", width: 96, height: 96, decoding: "async", draggable: false, src: address });
  picture.addEventListener("error", () => picture.classList.add("missing"));
  const score = h("span", { class: "score" });
  const words = h("span", { class: "decision" });
  const element = h(
    "div",
    { class: "figure", role: "option", id: `figure-${first.key}` },
    h("div", { class: "frame" }, picture),
    h("div", { class: "caption" }, score, words),
  );
  const cell = { element, figure: first };
  cell.draw = (figure, index, total, isSelected) => {
    cell.figure = figure;
    const label = `${nameOf(figure)}, score ${scoreWords(figure)}, ${kindWords(figure)}`;
    element.dataset.kind = kindOf(figure);
    element.dataset.key = figure.key;
    element.classList.toggle("unsent", Boolean(figure.unsent));
    element.setAttribute("aria-selected", String(isSelected));
    element.setAttribute("aria-posinset", index + 1);
    element.setAttribute("aria-setsize", total);
    element.setAttribute("aria-label", figure.unsent ? `${label}, not sent yet` : label);
    fill(score, scoreWords(figure));
    fill(words, kindWords(figure));
  };
  return cell;
}
