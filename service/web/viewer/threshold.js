// The threshold slider: what would be counted at another threshold, at once, and the decisions that would make it so.

import { fill, h } from "./dom.js";
import { number, plural } from "./format.js";
import { countInMostActiveCircle } from "./most_active_circle.js";

const STEP = 0.01;

/**
 * `countedAt(threshold)` gives what would be `counted`, `added` and `removed` there; `add` and `reject` do it.
 * `model` is the report's; `areaMm2` is that of the MAI's circle; `mpp` in um per level-0 px (x, y).
 */
export function createThresholdSlider({ model, lowest, areaMm2, mpp, countedAt, onChange, add, reject, mayDecide }) {
  const { threshold } = model;
  const radiusUm = Math.sqrt((areaMm2 * 1e6) / Math.PI);
  const preview = h("output", { class: "preview", for: "threshold" });
  const cost = h("span", { class: "quiet", role: "status" });
  const valueText = h("span", { class: "value" });
  const slider = h("input", {
    type: "range",
    id: "threshold",
    min: String(lowest),
    max: String(1 - STEP),
    step: String(STEP),
    value: String(threshold),
    oninput: () => draw(),
    onfocus: showCost,
    "aria-describedby": "threshold-words",
  });
  const resetButton = h("button", { type: "button", class: "plain", onclick: () => setValue(threshold) }, "Reset");
  const applyButton = h("button", { type: "button", hidden: true, onclick: apply });
  const label = h("label", { for: "threshold", id: "threshold-label" }, "Threshold");
  const element = h(
    "section",
    { class: "threshold", "aria-labelledby": "threshold-label" },
    h("div", { class: "line" }, label, valueText, resetButton),
    slider,
    h("p", { id: "threshold-words" }, preview, cost),
    applyButton,
  );

  /** The slider's threshold; the analysis' own where it stands on the step next to that. */
  function value() {
    const chosen = Number(slider.value);
    return Math.abs(chosen - threshold) < STEP / 2 ? threshold : chosen;
  }

  async function showCost() {
    (await import("./threshold_cost.js")).showCost(cost, model, value());
  }

  function setValue(chosen) {
    slider.value = String(chosen);
    draw();
  }

  function apply() {
    const chosen = value();
    const { added, removed } = countedAt(chosen);
    if (chosen < threshold) add(added, chosen);
    else reject(removed, chosen);
    setValue(threshold);
  }

  function draw() {
    const chosen = value();
    const isMoved = chosen !== threshold;
    const { counted, added, removed } = countedAt(chosen);
    const inCircle = countInMostActiveCircle(
      counted.map((figure) => [figure.x * mpp[0], figure.y * mpp[1]]),
      radiusUm,
    );
    const total = plural(counted.length, "mitosis", "mitoses");
    fill(valueText, `${chosen}`, isMoved ? "" : h("span", { class: "quiet" }, " as analysed"));
    fill(preview, `${total} would be counted, ${number(inCircle)} in the most active ${number(areaMm2, 2)} mm²`);
    element.dataset.counted = counted.length;
    element.dataset.mai = inCircle;
    resetButton.hidden = !isMoved;
    applyButton.hidden = !mayDecide || !(added.length || removed.length);
    fill(applyButton, chosen < threshold ? `Add ${these(added, "candidate")}` : `Reject ${these(removed, "figure")}`);
    if (isMoved || cost.firstChild) showCost();
    onChange(chosen);
  }

  return { element, draw, value };
}

const these = (figures, one) => (figures.length === 1 ? `this ${one}` : `these ${plural(figures.length, one)}`);
