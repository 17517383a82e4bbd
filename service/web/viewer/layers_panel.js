// Which layers are seen, and how strongly.

import { h, newId } from "./dom.js";

const NAMES = {
  detections: "Mitoses",
  rejected: "Rejected ones",
  hotspot: "MAI hot-spot",
  tissue: "Tissue outline",
  heatmap: "Heat map",
};

/** `missing` names layers that this analysis does not have. */
export function layersPanel(over, missing = []) {
  const rows = Object.entries(over.layers).map(([name, layer]) => {
    const [box, slider] = [newId("layer"), newId("fade")];
    const absent = missing.includes(name);
    const fade = h("input", {
      type: "range",
      id: slider,
      min: "0.1",
      max: "1",
      step: "0.05",
      value: String(layer.opacity),
      disabled: absent,
      "aria-label": `Strength of ${NAMES[name]}`,
      oninput: () => ((layer.opacity = Number(fade.value)), over.redraw()),
    });
    const check = h("input", {
      type: "checkbox",
      id: box,
      checked: layer.on && !absent,
      disabled: absent,
      dataset: { layer: name },
      onchange: () => ((layer.on = check.checked), over.redraw()),
    });
    return h(
      "div",
      { class: "layer" },
      check,
      h("label", { for: box }, NAMES[name], absent ? h("span", { class: "quiet" }, " (not kept)") : null),
      fade,
    );
  });
  return h("details", { class: "layers", open: innerWidth > 1100 }, h("summary", {}, "Layers"), rows);
}
