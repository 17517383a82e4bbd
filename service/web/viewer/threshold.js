// The threshold slider: what would be counted at another operating point, at once; and the way to make it so.

import { fill, h } from "./dom.js";
import { number, plural } from "./format.js";
import { fullestDisc } from "./hotspot.js";

/** `of(threshold)` gives what would be counted, taken in and left out there; `accept` and `reject` make it so. */
export function thresholdSlider({ threshold, lowest, um, of, onChange, accept, reject, may }) {
  const text = h("output", { class: "preview", for: "threshold" });
  const value = h("span", { class: "value" });
  const slider = h("input", {
    type: "range",
    id: "threshold",
    min: String(lowest),
    max: "0.99",
    step: "0.01",
    value: String(threshold),
    oninput: () => draw(),
    "aria-describedby": "threshold-words",
  });
  const back = h("button", { type: "button", class: "plain", onclick: () => set(threshold) }, "Back");
  const make = h("button", { type: "button", hidden: true });
  const element = h(
    "section",
    { class: "threshold", "aria-labelledby": "threshold-label" },
    h("div", { class: "line" }, h("label", { for: "threshold", id: "threshold-label" }, "Threshold"), value, back),
    slider,
    h("p", { id: "threshold-words" }, text),
    make,
  );

  function set(wanted) {
    slider.value = String(wanted);
    draw();
  }

  function draw() {
    const at = Number(slider.value);
    const moved = Math.abs(at - threshold) >= 0.005;
    const { counted, more, less } = of(moved ? at : threshold);
    const inside = fullestDisc(
      counted.map((item) => [item.x * um.x, item.y * um.y]),
      um.radius,
    );
    fill(value, number(at, 2), moved ? "" : h("span", { class: "quiet" }, " as analysed"));
    back.hidden = !moved;
    fill(
      text,
      `${plural(counted.length, "mitosis", "mitoses")} would be counted, ${number(inside)} in the fullest ${number(um.area, 2)} mm²`,
    );
    element.dataset.counted = counted.length;
    element.dataset.mai = inside;
    make.hidden = !may || !moved || !(more.length || less.length);
    const these = (items, one) => (items.length === 1 ? `this ${one}` : `these ${plural(items.length, one)}`);
    fill(make, at < threshold ? `Add ${these(more, "candidate")}` : `Reject ${these(less, "figure")}`);
    make.onclick = () => {
      if (at < threshold) accept(more, at);
      else reject(less, at);
      set(threshold);
    };
    onChange(moved ? at : threshold);
  }

  return {
    element,
    draw,
    set,
    get value() {
      return Number(slider.value);
    },
  };
}
