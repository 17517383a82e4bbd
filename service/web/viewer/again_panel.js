// Asking for an analysis of the slide that is looked at: of all of it or of what is drawn on it, and once more with
// other parameters; and the analyses that there are of it.

import { viewAddress } from "./address.js";
import { get } from "./api.js";
import { STATUS_WORDS, TEXT_LENGTH } from "./contract.js";
import { announce, fill, h, newId } from "./dom.js";
import { createDrawing } from "./drawing.js";
import { dateAndTime, number } from "./format.js";
import { may } from "./login.js";
import { problemElements } from "./problems.js";
import { submitAnalysis } from "./submission.js";

const KINDS = { rectangle: "Rectangle", polygon: "Polygon", freehand: "Freehand" };
const OTHERS = 20; // analyses of the slide that are listed

/** `analysis` is null where there is none yet; `region` is the geometry of what it looked at, or null. */
export function createAgainPanel({ stage, deepZoom, overlay, slide, analysis, region }) {
  const { width, height, mpp: known } = slide.slide;
  const shapes = region ? [{ name: "region of this analysis", rings: ringsOf(region), geometry: region }] : [];
  const list = h("ul", { class: "shapes" });
  const hint = h("p", { class: "quiet", role: "status" });
  const problem = h("div", { class: "problem", role: "alert", hidden: true });
  const others = h("div", {});
  const asked = analysis?.request ?? {};
  const fields = {
    mpp: field("µm per pixel", {
      type: "number",
      step: "any",
      min: "0",
      required: !known,
      value: asked.mpp ?? "",
      placeholder: known ? `${[...new Set(known)].join(" × ")} (from the slide)` : "needed",
    }),
    threshold: field("Threshold", {
      type: "number",
      step: "0.01",
      min: "0.01",
      max: "0.99",
      value: asked.threshold ?? "",
      placeholder: "the model's own",
    }),
    accession: field("Accession number", {
      maxlength: String(TEXT_LENGTH),
      value: analysis?.accession_number ?? "",
      placeholder: "optional",
      disabled: Boolean(analysis?.accession_number),
    }),
  };
  const urgent = h("input", { type: "checkbox", id: newId("field"), checked: asked.priority === "stat" });
  const drawing = createDrawing({
    stage,
    deepZoom,
    overlay,
    shapes: () => shapes,
    onDrawn: (ring, kind) => add(KINDS[kind], ring),
    onEnd: drawButtons,
  });
  const drawButton = Object.entries(KINDS).map(([kind, label]) => {
    const onclick = () => (drawing.kind === kind ? drawing.stop() : begin(kind));
    return h("button", { type: "button", dataset: { kind }, onclick, "aria-pressed": "false" }, label);
  });
  const visibleButton = h("button", { type: "button", onclick: addVisible }, "Use the visible part");
  const analyseButton = h(
    "button",
    { type: "submit", class: "main", disabled: !may("submit") },
    analysis ? "Analyse again" : "Analyse",
  );
  const element = h(
    "div",
    { class: "standing" },
    h(
      "form",
      { class: "ask", onsubmit },
      h("h2", {}, analysis ? "Analyse this slide again" : "Not analysed yet"),
      h("div", { class: "buttons", role: "group", "aria-label": "Draw a region" }, drawButton, visibleButton),
      hint,
      list,
      Object.values(fields).map(({ element: each }) => each),
      h("div", { class: "field check" }, urgent, h("label", { for: urgent.id }, "Urgent")),
      problem,
      h("div", { class: "buttons" }, analyseButton),
    ),
    others,
  );

  function begin(kind) {
    drawing.begin(kind);
    drawButtons();
    deepZoom.focus();
    const byKeys = "Enter puts a corner under the cross, Backspace takes it back, Space closes it.";
    fill(hint, kind === "polygon" ? `Click its corners, the last one twice. ${byKeys}` : "Draw it with the pointer.");
  }

  function drawButtons() {
    for (const button of drawButton) button.setAttribute("aria-pressed", String(drawing.kind === button.dataset.kind));
    fill(hint, shapes.length ? "" : "The whole slide, unless something is drawn.");
  }

  function addVisible() {
    const size = deepZoom.size();
    const corners = [
      [0, 0],
      [size.width, 0],
      [size.width, size.height],
      [0, size.height],
    ];
    const ring = corners.map(([x, y]) => {
      const place = deepZoom.toSlide(x, y);
      return [clamp(place.x, width), clamp(place.y, height)];
    });
    add("Visible part", [...ring, ring[0]]);
  }

  function add(kind, ring) {
    const name = `${kind} ${shapes.length + 1}`;
    shapes.push({ name, rings: [ring], geometry: { type: "Polygon", coordinates: [ring] }, isExcluded: false });
    announce(`${name} is drawn`);
    drawShapes();
  }

  function drawShapes() {
    const lines = shapes.map((shape) => {
      const select = h(
        "select",
        {
          "aria-label": `What to do with ${shape.name}`,
          onchange: () => {
            shape.isExcluded = select.value === "without";
            overlay.redraw();
          },
        },
        h("option", { value: "only" }, "only this"),
        h("option", { value: "without", selected: shape.isExcluded }, "without this"),
      );
      const onclick = () => {
        shapes.splice(shapes.indexOf(shape), 1);
        drawShapes();
      };
      const label = `Take ${shape.name} away`;
      const button = h("button", { type: "button", class: "plain", onclick, "aria-label": label }, "✕");
      return h("li", {}, h("span", {}, shape.name), select, button);
    });
    fill(list, lines);
    drawButtons();
    overlay.redraw();
  }

  function values() {
    const found = { priority: urgent.checked ? "stat" : "routine" };
    if (fields.mpp.input.value) found.mpp = Number(fields.mpp.input.value);
    if (fields.threshold.input.value) found.threshold = Number(fields.threshold.input.value);
    const accession = fields.accession.input.value.trim();
    if (analysis) found.order_of = analysis.id;
    if (accession && !fields.accession.input.disabled) found.order = { accession_number: accession };
    for (const [name, isExcluded] of [
      ["region", false],
      ["exclude", true],
    ]) {
      const geometries = shapes
        .filter((shape) => Boolean(shape.isExcluded) === isExcluded)
        .map((each) => each.geometry);
      if (geometries.length) found[name] = { type: "GeometryCollection", geometries };
    }
    if (found.order) delete found.order_of;
    return found;
  }

  async function onsubmit(event) {
    event.preventDefault();
    problem.hidden = true;
    analyseButton.disabled = true;
    try {
      const { id } = await submitAnalysis(slide.slide_id, values());
      location.hash = viewAddress("analysis", id);
    } catch (error) {
      fill(problem, problemElements(error));
      problem.hidden = false;
      analyseButton.disabled = false;
    }
  }

  async function loadOthers() {
    const query = new URLSearchParams({ slide_id: slide.slide_id, limit: OTHERS });
    const { analyses } = await get(`v1/analyses?${query}`).catch(() => ({ analyses: [] }));
    if (!analyses.length) return;
    const lines = analyses.map(({ id, status, summary, request, created_at: createdAt }) => {
      const parts = [
        dateAndTime(createdAt),
        summary ? `MAI ${number(summary.mai)}` : STATUS_WORDS[status],
        request.region || request.exclude ? "region" : "whole slide",
        request.threshold && `threshold ${request.threshold}`,
        request.mpp && `${request.mpp} µm per pixel`,
      ];
      const words = parts.filter(Boolean).join(", ");
      return h(
        "li",
        {},
        id === analysis?.id ? `${words} (this one)` : h("a", { href: viewAddress("analysis", id) }, words),
      );
    });
    fill(others, h("h2", {}, "Analyses of this slide"), h("ul", { class: "others" }, lines));
  }

  drawShapes();
  loadOthers();
  return { element, close: drawing.close };
}

function field(label, properties) {
  const id = newId("field");
  const input = h("input", { id, autocomplete: "off", ...properties, value: String(properties.value) });
  return { input, element: h("div", { class: "field" }, h("label", { for: id }, label), input) };
}

/** All rings of a Polygon or MultiPolygon, or of a rectangle. */
function ringsOf(geometry) {
  return geometry.type === "MultiPolygon" ? geometry.coordinates.flat() : geometry.coordinates;
}

const clamp = (value, longest) => Math.min(longest, Math.max(0, Math.round(value)));
