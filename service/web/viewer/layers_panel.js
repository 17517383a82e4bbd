// Which layers are drawn over the slide, and how strongly.

import { HINDRANCE_WORDS } from "./contract.js";
import { h, newId } from "./dom.js";

const LAYER_NAMES = {
  detections: "Mitoses",
  rejected: "Rejected ones",
  hotspot: "MAI hot-spot",
  unexamined: "Not examined",
  tissue: "Tissue outline",
  heatmap: "Heat map",
};
const OPEN_FROM_PX = 1100; // on narrower pages the panel would cover the slide

/** `missing` names the layers that this analysis does not have, `hindrances` why parts of it cannot be examined. */
export function createLayersPanel(overlay, missing, hindrances) {
  const rows = Object.entries(overlay.layers).map(([name, layer]) => [
    createRow(name, layer, missing.includes(name), overlay.redraw),
    name === "unexamined" && hindrances.map(createLegend),
  ]);
  return h("details", { class: "layers", open: innerWidth > OPEN_FROM_PX }, h("summary", {}, "Layers"), rows);
}

function createRow(name, layer, isMissing, redraw) {
  const [checkboxId, sliderId] = [newId("layer"), newId("opacity")];
  const slider = h("input", {
    type: "range",
    id: sliderId,
    min: "0.1",
    max: "1",
    step: "0.05",
    value: String(layer.opacity),
    disabled: isMissing,
    "aria-label": `Strength of ${LAYER_NAMES[name]}`,
    oninput: () => {
      layer.opacity = Number(slider.value);
      redraw();
    },
  });
  const checkbox = h("input", {
    type: "checkbox",
    id: checkboxId,
    checked: layer.on && !isMissing,
    disabled: isMissing,
    dataset: { layer: name },
    onchange: () => {
      layer.on = checkbox.checked;
      redraw();
    },
  });
  const note = isMissing ? h("span", { class: "quiet" }, " (not kept)") : null;
  return h("div", { class: "layer" }, checkbox, h("label", { for: checkboxId }, LAYER_NAMES[name], note), slider);
}

function createLegend(reason) {
  return h("div", { class: `legend ${reason}` }, h("span", { "aria-hidden": "true" }), HINDRANCE_WORDS[reason]);
}
