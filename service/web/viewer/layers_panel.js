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
const HEAT_WORDS = { density: "Mitoses per mm²", probability: "Probability of a mitosis" };
const OPEN_FROM_PX = 1100; // on narrower pages the panel would cover the slide

/**
 * `missing` names the layers that this analysis does not have, `hindrances` why parts of it cannot be examined, `legends`
 * what the colours of each heat map mean. `draw()` shows the legend of the one that is drawn.
 */
export function createLayersPanel(overlay, { missing, hindrances, legends }) {
  const scales = Object.entries(legends).map(([kind, legend]) => [kind, createScale(kind, legend)]);
  const rows = Object.entries(overlay.layers).map(([name, layer]) => {
    const onChange = () => {
      overlay.redraw();
      draw();
    };
    return [
      createRow(name, layer, missing.includes(name), onChange),
      name === "unexamined" && hindrances.map(createLegend),
    ];
  });
  const element = h(
    "details",
    { class: "layers", open: innerWidth > OPEN_FROM_PX },
    h("summary", {}, "Layers"),
    rows,
    scales.map(([, scale]) => scale),
  );

  function draw() {
    const kind = overlay.layers.heatmap.on ? overlay.heatKind() : null;
    for (const [each, scale] of scales) scale.hidden = each !== kind;
  }

  draw();
  return { element, draw };
}

function createScale(kind, legend) {
  const isOpen = kind === "density"; // what is denser has the last colour too
  const stops = legend.map(({ value, colour }, index) => {
    const swatch = h("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.backgroundColor = colour;
    return h("li", {}, swatch, `${value}${isOpen && index === legend.length - 1 ? "+" : ""}`);
  });
  return h("div", { class: "heat-scale" }, HEAT_WORDS[kind], h("ul", {}, stops));
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
  const lines = h("span", { "aria-hidden": "true" });
  lines.style.setProperty("--hatch", `var(--${reason})`);
  return h("div", { class: "legend" }, lines, HINDRANCE_WORDS[reason]);
}
