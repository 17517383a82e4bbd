// The field of view of one's own microscope, in the middle of the view, and counting field after field.

import { get } from "./api.js";
import { loadDefinitions } from "./definitions.js";
import { announce, colour, fill, h, newId } from "./dom.js";
import { isInWindow } from "./figures.js";
import { number, plural } from "./format.js";

const DIAMETER_KEY = "mitosis-field-um"; // of the browser's storage

/** `review` is that of the analysis, null where a slide has none; `mpp` in um per level-0 px (x, y). */
export async function createFieldOfView({ deepZoom, overlay, mpp, review }) {
  const known = await loadDefinitions().catch(() => null);
  const usual = 1000 * (known?.definitions[0].field_diameter_mm ?? 0);
  const strokeColour = colour("hotspot");
  const fields = []; // that were counted: place, keys of figures, and the examined tissue (mm2) once it is known
  const words = h("output", {});
  const diameter = h("input", {
    type: "number",
    id: newId("diameter"),
    min: "50",
    max: "2000",
    step: "1",
    required: true,
    value: localStorage.getItem(DIAMETER_KEY) ?? String(usual),
    oninput: () => {
      if (!diameter.checkValidity()) return;
      localStorage.setItem(DIAMETER_KEY, diameter.value);
      begin();
    },
  });
  const countButton = h("button", { type: "button", class: "main", onclick: count }, "Count this field");
  const backButton = h("button", { type: "button", onclick: back }, "Field back");
  const beginButton = h("button", { type: "button", onclick: begin }, "Begin again");
  const element = h(
    "div",
    { class: "line" },
    h("label", { for: diameter.id }, "Field diameter, µm"),
    diameter,
    countButton,
    backButton,
    beginButton,
    words,
  );
  let stopPainting = null;

  /** The keys of a field's figures that still count; that of an addition changes when it is saved. */
  function stillIn({ keys }) {
    const counted = new Set(review?.counted.map((figure) => figure.key));
    return keys.map((key) => review.keyNow(key)).filter((key) => counted.has(key));
  }

  /** The field in the middle of the view, and its figures that no field before it holds. */
  function fieldHere() {
    const { x, y } = deepZoom.view();
    const circle = { shape: "circle", x: x - 0.5, y: y - 0.5, radius_um: Number(diameter.value) / 2 };
    const before = new Set(fields.flatMap(stillIn));
    const found = (review?.counted ?? []).filter(
      (figure) => isInWindow(figure, circle, mpp) && !before.has(figure.key),
    );
    return { circle, keys: found.map((figure) => figure.key) };
  }

  function count() {
    const field = fieldHere();
    fields.push(field);
    draw();
    measure(field);
    announce(`field ${fields.length}: ${plural(field.keys.length, "mitosis", "mitoses")}`);
    const { width, height } = deepZoom.size(); // to the next field on the right of the screen
    const across = ((2 * field.circle.radius_um) / mpp[0]) * deepZoom.frame().zoom;
    deepZoom.goTo(deepZoom.toSlide(width / 2 + across, height / 2));
  }

  /** Ask how much examined tissue a field holds: the service knows, where there is an analysis. */
  async function measure(field) {
    if (!review) return;
    const { x, y, radius_um: radius } = field.circle;
    const asked = { x: Math.max(0, x).toFixed(2), y: Math.max(0, y).toFixed(2), diameter_um: 2 * radius };
    const found = await get(review.address("field", asked)).catch(() => null); // then it is of any kind
    field.tissue = found?.tissue_mm2;
    if (fields.includes(field)) draw();
  }

  function back() {
    const last = fields.pop();
    draw();
    if (last) deepZoom.goTo({ x: last.circle.x + 0.5, y: last.circle.y + 0.5 });
  }

  function begin() {
    fields.length = 0;
    draw();
  }

  function draw() {
    const counts = fields.map((field) => (field.count = stillIn(field).length));
    const total = counts.reduce((sum, each) => sum + each, 0);
    const area = (fields.length * Math.PI * (Number(diameter.value) / 2000) ** 2).toFixed(2);
    const here = fieldHere().keys.length;
    const tissue = fields.reduce((sum, field) => sum + field.tissue, 0); // no number where one is not known
    const kind = Number.isNaN(tissue) ? " of any kind" : `, ${number(tissue, 2)} mm² of it examined tissue`;
    fill(
      words,
      `Here ${number(here)}. ${plural(total, "mitosis", "mitoses")} in ${plural(fields.length, "field")}`,
      fields.length ? ` (${counts.join(" + ")}), ${area} mm²${kind}` : "",
    );
    backButton.disabled = fields.length === 0;
    beginButton.disabled = fields.length === 0;
    overlay.redraw();
  }

  function paint({ context, frame, strokeWithHalo, drawName }) {
    fields.forEach(({ circle, count: held }, index) => {
      const [x, y] = [frame.x + (circle.x + 0.5) * frame.zoom, frame.y + (circle.y + 0.5) * frame.zoom];
      strokeWithHalo(context, circleOf(frame, x, y, circle.radius_um), strokeColour, 1.5);
      drawName(frame, `${index + 1}: ${held}`, x, y);
    });
    const radius = Number(diameter.value) / 2;
    strokeWithHalo(context, circleOf(frame, frame.width / 2, frame.height / 2, radius), strokeColour, 3);
  }

  function circleOf({ zoom }, x, y, radiusUm) {
    const path = new Path2D();
    path.ellipse(x, y, (radiusUm / mpp[0]) * zoom, (radiusUm / mpp[1]) * zoom, 0, 0, 2 * Math.PI);
    return path;
  }

  deepZoom.onRest(() => stopPainting && draw());
  return {
    element,
    start() {
      stopPainting = overlay.addPainter(paint);
      review?.addEventListener("change", draw);
      draw();
    },
    stop() {
      stopPainting();
      review?.removeEventListener("change", draw);
      stopPainting = null;
    },
    enter: count,
  };
}
