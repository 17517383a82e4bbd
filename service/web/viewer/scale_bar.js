// The scale bar, the magnification, and the place under the pointer.

import { fill, h } from "./dom.js";
import { length, magnification, number, placeInUm, UM_PER_PX_AT_X1 } from "./format.js";

const LONGEST_PX = 130;

/** The longest of 1, 2, 5, 10, ... that is not longer. */
function roundLength(longest) {
  const power = 10 ** Math.floor(Math.log10(longest));
  return Math.max(...[1, 2, 5].map((step) => step * power).filter((each) => each <= longest));
}

/** `mpp` in um per level-0 px (x, y), or null where it is not known. */
export function createScaleBar(stage, deepZoom, mpp) {
  const bar = h("span", { class: "bar" });
  const barLength = h("span", { class: "length" });
  const title = `As on a microscope: ×40 is ${number(UM_PER_PX_AT_X1 / 40, 2)} µm per screen pixel`;
  const power = h("span", { class: "magnification", title });
  const pointer = h("span", { class: "place" });
  const element = h("div", { class: "scale" }, h("div", { class: "ruler" }, barLength, bar), power, pointer);

  let last; // pointer event
  function draw() {
    const frame = deepZoom.frame();
    if (!frame) return;
    if (last) onPointer(last);
    bar.hidden = !mpp;
    if (!mpp) return fill(barLength, "µm per pixel unknown");
    const umPerPx = mpp[0] / frame.zoom;
    const round = roundLength(LONGEST_PX * umPerPx);
    const times = magnification(umPerPx);
    bar.style.width = `${round / umPerPx}px`;
    fill(barLength, length(round));
    fill(power, `×${number(times, times < 10 ? 1 : 0)}`);
  }

  function onPointer(event) {
    last = event;
    if (!deepZoom.frame()) return;
    const box = stage.getBoundingClientRect();
    const { x, y } = deepZoom.toSlide(event.clientX - box.left, event.clientY - box.top);
    fill(pointer, `x ${Math.floor(x)}, y ${Math.floor(y)} px`, mpp && ` · ${placeInUm(x, y, mpp)}`);
  }

  deepZoom.onMove(draw);
  stage.addEventListener("pointermove", onPointer);
  return { element, draw };
}
