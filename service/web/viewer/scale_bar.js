// The scale bar, the magnification, and the place under the pointer.

import { fill, h } from "./dom.js";
import { length, magnification, number, placeInUm, UM_PER_PX_AT_X1 } from "./format.js";

const LONGEST_PX = 130;

/** The longest of 1, 2, 5, 10, 20, ... that is not longer than this. */
export function roundLength(longest) {
  const power = 10 ** Math.floor(Math.log10(longest));
  return Math.max(...[1, 2, 5].map((step) => step * power).filter((each) => each <= longest));
}

/** `mpp` in um per level-0 px (x, y), or null where it is not known. */
export function createScaleBar(stage, deepZoom, mpp) {
  const bar = h("span", { class: "bar" });
  const barLength = h("span", { class: "length" });
  const power = h("span", { class: "magnification" });
  const pointer = h("span", { class: "place" });
  const element = h("div", { class: "scale" }, h("div", { class: "ruler" }, barLength, bar), power, pointer);

  let at = null; // the pointer, px of the stage; null: it is elsewhere

  function draw() {
    const frame = deepZoom.frame();
    if (!frame) return;
    drawPlace();
    if (!mpp) {
      fill(barLength, "µm per pixel unknown");
      bar.hidden = true;
      return;
    }
    const umPerPx = mpp[0] / frame.zoom;
    const round = roundLength(LONGEST_PX * umPerPx);
    const times = magnification(umPerPx);
    bar.style.width = `${round / umPerPx}px`;
    fill(barLength, length(round));
    fill(power, `×${number(times, times < 10 ? 1 : 0)}`);
    power.title = `As on a microscope: ×40 is ${number(UM_PER_PX_AT_X1 / 40, 2)} µm per screen pixel`;
  }

  /** The slide may move below a pointer that rests. */
  function drawPlace() {
    const { x, y } = at && deepZoom.frame() ? deepZoom.toSlide(at.x, at.y) : {};
    const px = `x ${Math.floor(x)}, y ${Math.floor(y)} px`;
    fill(pointer, x === undefined ? "" : mpp ? `${px} · ${placeInUm(x, y, mpp)}` : px);
  }

  function onPointer(event) {
    const box = stage.getBoundingClientRect();
    at = { x: event.clientX - box.left, y: event.clientY - box.top };
    drawPlace();
  }

  deepZoom.onMove(draw);
  stage.addEventListener("pointermove", onPointer);
  stage.addEventListener("pointerleave", () => {
    at = null;
    drawPlace();
  });
  return { element, draw };
}
