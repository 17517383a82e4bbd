// The scale bar, the magnification, and where the pointer is.

import { h, fill } from "./dom.js";
import { number, um } from "./format.js";

const STEPS = [1, 2, 5];

/** The longest round length that is not longer than so many um. */
export function roundLength(longest) {
  const power = 10 ** Math.floor(Math.log10(longest));
  return Math.max(...STEPS.map((step) => step * power).filter((length) => length <= longest));
}

export function scaleBar(stage, zoomed, mpp) {
  const bar = h("span", { class: "bar" });
  const length = h("span", { class: "length" });
  const magnification = h("span", { class: "magnification" });
  const place = h("span", { class: "place" });
  const element = h("div", { class: "scale" }, h("div", { class: "ruler" }, length, bar), magnification, place);

  function draw() {
    const seen = zoomed.frame();
    if (!seen) return;
    if (!mpp) {
      fill(length, "µm per pixel unknown");
      bar.hidden = true;
      return;
    }
    const perPx = mpp[0] / seen.zoom;
    const round = roundLength(130 * perPx);
    bar.style.width = `${round / perPx}px`;
    fill(length, um(round));
    fill(magnification, `×${number(10 / perPx, 10 / perPx < 10 ? 1 : 0)}`);
    magnification.title = "As on an objective: ×40 is 0.25 µm per screen pixel";
  }

  function point(event) {
    if (!zoomed.frame()) return;
    const box = stage.getBoundingClientRect();
    const { x, y } = zoomed.toSlide(event.clientX - box.left, event.clientY - box.top);
    const px = `x ${Math.floor(x)}, y ${Math.floor(y)} px`;
    fill(place, mpp ? `${px} · ${(x * mpp[0]).toFixed(1)}, ${(y * mpp[1]).toFixed(1)} µm` : px);
  }

  zoomed.onMove(draw);
  stage.addEventListener("pointermove", point);
  return { element, draw };
}
