// What is drawn over the slide, on one canvas: figures, tissue, what cannot be examined, hot-spot, region, heat map.
//
// A decision is told by shape as well as by colour: accepted is a double ring, rejected is crossed out, added is a
// square, below the threshold is dashed.

import { HINDRANCE_WORDS } from "./contract.js";
import { colour } from "./dom.js";
import { turned } from "./deep_zoom.js";
import { kindOf } from "./figures.js";

const RING_UM = 13; // radius: a mitosis with some room round it
const LARGEST_PX = 70; // a ring's radius on the screen
const LEAST_PX = 4.5; // smaller rings would hide what they mark: dots then
const DETAIL_PX = 10; // from here, a ring has a halo and accepted ones a second ring
const MANY = 400; // figures, from which marks are copied instead of drawn one by one
const HATCH_PX = 8; // from line to line, on the screen
const DENSITY_FROM_UM = 1.6; // um per screen px: at less than about x6
const SHARP_CELL_PX = 24; // cells of the heat map are blurred until they are as large on the screen
const KINDS = ["candidate", "rejected", "open", "accepted", "added"]; // later ones are drawn over earlier ones

/** Colours of figures by their kind, and of everything else by name; read once, because asking costs time. */
function readColours() {
  const names = ["halo", "hotspot", "hotspot-name", "region", "tissue-outline", ...Object.keys(HINDRANCE_WORDS)];
  const others = names.map((name) => [name, colour(name)]);
  return Object.fromEntries([...KINDS.map((kind) => [kind, colour(`figure-${kind}`)]), ...others]);
}

/** `mpp` in um per level-0 px (x, y). */
export function createOverlay(stage, deepZoom, mpp) {
  const canvas = document.createElement("canvas");
  canvas.className = "overlay";
  canvas.setAttribute("aria-hidden", "true"); // all of it is in the lists beside the slide
  stage.append(canvas);
  const context = canvas.getContext("2d");
  const layers = {
    detections: { on: true, opacity: 1 },
    rejected: { on: true, opacity: 0.8 },
    hotspot: { on: true, opacity: 1 },
    unexamined: { on: true, opacity: 0.8 },
    tissue: { on: false, opacity: 0.8 },
    heatmap: { on: false, opacity: 0.6 },
  };
  const content = {
    figures: [],
    selected: null,
    hotspots: [],
    tissue: null,
    unexamined: {}, // by reason, a path
    heat: {}, // `density` and `probability`: image and place
    region: null,
    cross: false,
  };
  const colours = readColours();
  const painters = new Set(); // of tools
  let drawRequest = 0;
  let many = null; // draws many marks, once there are

  function draw() {
    drawRequest = 0;
    const { width, height } = deepZoom.size();
    const density = devicePixelRatio || 1;
    const [across, down] = [width, height].map((length) => Math.round(length * density));
    if (canvas.width !== across || canvas.height !== down) Object.assign(canvas, { width: across, height: down });
    context.setTransform(density, 0, 0, density, 0, 0);
    context.clearRect(0, 0, width, height);
    const place = deepZoom.frame();
    if (!place) return;
    const frame = { ...place, width, height, density, seen: seenOf(place, width, height) };
    turnContext(frame);
    if (layers.heatmap.on) drawHeat(frame);
    if (layers.unexamined.on) {
      for (const [reason, path] of Object.entries(content.unexamined)) drawHatched(frame, path, colours[reason]);
    }
    if (layers.tissue.on && content.tissue) {
      const { opacity } = layers.tissue;
      drawOutline(frame, content.tissue, { strokeColour: colours["tissue-outline"], widthPx: 2, opacity });
    }
    if (content.region) {
      drawOutline(frame, content.region, { strokeColour: colours.region, widthPx: 1.5, dashPx: [8, 5] });
    }
    if (layers.hotspot.on) for (const hotspot of content.hotspots) drawHotspot(frame, hotspot);
    if (layers.detections.on) drawFigures(frame);
    for (const paint of painters) paint({ context, frame, strokeWithHalo, drawOutline, drawName });
    if (content.cross) drawCross(frame);
  }

  /** Screen px as if nothing were turned: the canvas turns what is drawn, as the slide is turned. */
  function turnContext({ width, height, density, turn }) {
    context.setTransform(density, 0, 0, density, 0, 0);
    if (!turn) return;
    context.translate(width / 2, height / 2);
    context.rotate(turn);
    context.translate(-width / 2, -height / 2);
  }

  function drawHeat({ x, y, zoom }) {
    const { image, place } = content.heat[heatKind(zoom)] ?? {};
    if (!image) return;
    context.globalAlpha = layers.heatmap.opacity;
    context.imageSmoothingEnabled = (place.width / image.naturalWidth) * zoom < SHARP_CELL_PX;
    context.drawImage(image, x + place.x * zoom, y + place.y * zoom, place.width * zoom, place.height * zoom);
    context.globalAlpha = 1;
  }

  /** From afar a density, near the probability of each place. */
  const heatKind = (zoom) => (mpp[0] / zoom > DENSITY_FROM_UM ? "density" : "probability");

  /** A line of the same width on the screen at every zoom, along a path in px of the slide. */
  function drawOutline(frame, path, { strokeColour, widthPx, dashPx = [], opacity = 1 }) {
    const { x, y, zoom } = frame;
    context.save();
    context.translate(x, y);
    context.scale(zoom, zoom);
    context.globalAlpha = opacity;
    context.strokeStyle = strokeColour;
    context.lineWidth = widthPx / zoom;
    context.setLineDash(dashPx.map((length) => length / zoom));
    context.stroke(path);
    context.restore();
  }

  /** Lines across an area, so that the tissue is seen between them; they move with the slide, and stay as far apart. */
  function drawHatched(frame, path, strokeColour) {
    const { x, y, zoom } = frame;
    const { left, top, right, bottom } = frame.seen;
    const { opacity } = layers.unexamined;
    context.save();
    context.translate(x, y);
    context.scale(zoom, zoom);
    context.clip(path, "evenodd");
    turnContext(frame);
    const lines = new Path2D();
    const first = left + top;
    for (let sum = first + ((x + y - first) % HATCH_PX) - HATCH_PX; sum < right + bottom; sum += HATCH_PX) {
      lines.moveTo(sum - top, top);
      lines.lineTo(sum - bottom, bottom);
    }
    context.globalAlpha = opacity;
    context.strokeStyle = strokeColour;
    context.lineWidth = 2;
    context.stroke(lines);
    context.restore();
    drawOutline(frame, path, { strokeColour, widthPx: 2, opacity });
  }

  function drawHotspot(frame, { place, label, isLabelBelow }) {
    const { x, y, zoom, height } = frame;
    const [centreX, centreY] = [x + (place.x + 0.5) * zoom, y + (place.y + 0.5) * zoom];
    const isCircle = place.shape === "circle";
    const half = isCircle ? [place.radius_um, place.radius_um] : [place.width_um / 2, place.height_um / 2];
    const [across, down] = half.map((um, axis) => (um / mpp[axis]) * zoom);
    const path = new Path2D();
    if (isCircle) path.ellipse(centreX, centreY, across, down, 0, 0, 2 * Math.PI);
    else path.rect(centreX - across, centreY - down, 2 * across, 2 * down);
    context.globalAlpha = layers.hotspot.opacity;
    strokeWithHalo(context, path, colours.hotspot, 2.5);
    // from near, its edge is far from what is looked at, and a name would tell nothing
    if (down <= 1.5 * height) {
      const above = Math.max(centreY - down - 8, Math.min(18, centreY)); // inside, where the edge is out of sight
      const below = Math.min(centreY + down + 18, Math.max(height - 8, centreY));
      drawName(frame, label, centreX, isLabelBelow ? below : above);
    }
    context.globalAlpha = 1;
  }

  /** Words at a place that turns with the slide; they stand upright. */
  function drawName(frame, label, placeX, placeY) {
    const [centreX, baseline] = turned(placeX, placeY, frame, frame.turn);
    context.save();
    context.setTransform(frame.density, 0, 0, frame.density, 0, 0);
    context.font = "600 13px system-ui, sans-serif";
    context.textAlign = "center";
    context.lineWidth = 4;
    context.strokeStyle = colours.halo;
    context.strokeText(label, centreX, baseline);
    context.fillStyle = colours["hotspot-name"];
    context.fillText(label, centreX, baseline);
    context.restore();
  }

  /** A coloured line on a wider white one, so that it is seen on any stain. */
  function strokeWithHalo(painter, path, strokeColour, width) {
    painter.strokeStyle = colours.halo;
    painter.lineWidth = width + 2;
    painter.stroke(path);
    painter.strokeStyle = strokeColour;
    painter.lineWidth = width;
    painter.stroke(path);
  }

  const radiusAt = (zoom) => Math.min(LARGEST_PX, (RING_UM / mpp[0]) * zoom);
  const centreOf = (frame, { x, y }) => [frame.x + (x + 0.5) * frame.zoom, frame.y + (y + 0.5) * frame.zoom];

  function drawFigures(frame) {
    if (many && content.figures.length > MANY) many.draw(frame);
    else drawMarks(context, frame, drawPaths);
    if (content.selected) drawSelected(frame, content.selected, Math.max(radiusAt(frame.zoom), 12));
  }

  async function loadMany() {
    const { createManyMarks } = await import("./many_marks.js");
    many ??= createManyMarks({ context, drawMarks, drawPaths, turnContext, most: MANY });
    redraw();
  }

  function drawMarks(painter, frame, drawKind) {
    const radius = radiusAt(frame.zoom);
    const centres = centresInView(frame, radius);
    for (const kind of KINDS) {
      if (!centres[kind].length || (kind === "rejected" && !layers.rejected.on)) continue;
      painter.globalAlpha = layers.detections.opacity * (kind === "rejected" ? layers.rejected.opacity : 1);
      drawKind(painter, centres[kind], kind, radius, frame);
    }
    painter.globalAlpha = 1;
  }

  function drawPaths(painter, centres, kind, radius) {
    const path = new Path2D();
    for (const [x, y] of centres) addMark(path, kind, x, y, radius);
    strokeMarks(painter, path, kind, radius);
  }

  function centresInView(frame, radius) {
    const { left, top, right, bottom } = frame.seen;
    const centres = Object.fromEntries(KINDS.map((kind) => [kind, []]));
    for (const figure of content.figures) {
      if (figure.key === content.selected?.key) continue;
      const [x, y] = centreOf(frame, figure);
      if (x < left - radius || y < top - radius || x > right + radius || y > bottom + radius) continue;
      centres[kindOf(figure)].push([x, y]);
    }
    return centres;
  }

  function strokeMarks(painter, path, kind, radius) {
    if (radius < LEAST_PX) {
      painter.fillStyle = colours[kind];
      painter.fill(path);
      return;
    }
    if (kind === "candidate") painter.setLineDash([4, 3]);
    if (radius < DETAIL_PX) {
      painter.strokeStyle = colours[kind];
      painter.lineWidth = 2;
      painter.stroke(path);
    } else strokeWithHalo(painter, path, colours[kind], 2);
    painter.setLineDash([]);
  }

  function drawSelected(frame, figure, radius) {
    const [centreX, centreY] = centreOf(frame, figure);
    const path = new Path2D();
    addMark(path, kindOf(figure), centreX, centreY, radius);
    addCross(path, centreX, centreY, radius + 3, radius + 12);
    strokeWithHalo(context, path, colours[kindOf(figure)], 3.5);
  }

  function drawCross({ width, height }) {
    const path = new Path2D();
    addCross(path, width / 2, height / 2, 6, 26);
    strokeWithHalo(context, path, colours.added, 2);
  }

  function redraw() {
    many?.forget();
    drawRequest ||= requestAnimationFrame(draw);
  }

  deepZoom.onMove(draw); // in the same frame as the slide: a frame later, marks would lag behind it
  const resizing = new ResizeObserver(redraw);
  resizing.observe(stage);

  return {
    layers,
    redraw,
    /** Change what is drawn. */
    set(changes) {
      Object.assign(content, changes);
      if (!many && content.figures.length > MANY) loadMany();
      redraw();
    },
    /** Which heat map is drawn at this scale: `density` or `probability`. */
    heatKind: () => heatKind(deepZoom.frame()?.zoom ?? 1),
    /** The figure at a place of the screen, or null where none is near. */
    figureAt(screenX, screenY) {
      const frame = deepZoom.frame();
      const [x, y] = turned(screenX, screenY, deepZoom.size(), -frame.turn);
      let nearest = { figure: null, distance: Math.max(12, radiusAt(frame.zoom)) };
      for (const figure of content.figures) {
        const [centreX, centreY] = centreOf(frame, figure);
        const distance = Math.hypot(centreX - x, centreY - y);
        if (distance <= nearest.distance) nearest = { figure, distance };
      }
      return nearest.figure;
    },
    /** Have something drawn over all, in every frame; returns a function that ends it. */
    addPainter(paint) {
      painters.add(paint);
      redraw();
      return () => {
        painters.delete(paint);
        redraw();
      };
    },
    close: () => resizing.disconnect(),
  };
}

/** The part of the screen, as if nothing were turned, that is seen: more than its width and height where it is turned. */
function seenOf({ turn }, width, height) {
  if (!turn) return { left: 0, top: 0, right: width, bottom: height };
  const reach = Math.hypot(width, height) / 2;
  const [x, y] = [width / 2, height / 2];
  return { left: x - reach, top: y - reach, right: x + reach, bottom: y + reach };
}

function addMark(path, kind, x, y, radius) {
  if (radius < LEAST_PX) {
    path.rect(x - 2, y - 2, 4, 4);
    return;
  }
  if (kind === "added") path.rect(x - radius, y - radius, 2 * radius, 2 * radius);
  else addCircle(path, x, y, radius);
  if (kind === "accepted" && radius >= DETAIL_PX) addCircle(path, x, y, radius - 4);
  if (kind === "rejected") {
    const reach = radius * Math.SQRT1_2;
    path.moveTo(x - reach, y + reach);
    path.lineTo(x + reach, y - reach);
  }
}

function addCircle(path, x, y, radius) {
  path.moveTo(x + radius, y);
  path.arc(x, y, radius, 0, 2 * Math.PI);
}

function addCross(path, x, y, from, to) {
  for (const side of [-1, 1]) {
    path.moveTo(x + side * from, y);
    path.lineTo(x + side * to, y);
    path.moveTo(x, y + side * from);
    path.lineTo(x, y + side * to);
  }
}

/** The closed lines of a GeoJSON MultiLineString as one path, in px of the slide. */
export function pathOf(lines) {
  const path = new Path2D();
  for (const line of lines) {
    line.forEach(([x, y], index) => (index ? path.lineTo(x, y) : path.moveTo(x, y)));
    path.closePath();
  }
  return path;
}

/** A report's region as a GeoJSON geometry: it may be a rectangle. */
export function geometryOf(region) {
  if (region.type) return { type: region.type, coordinates: region.coordinates };
  const { x, y, width, height } = region;
  const corners = [
    [x, y],
    [x + width, y],
    [x + width, y + height],
    [x, y + height],
    [x, y],
  ];
  return { type: "Polygon", coordinates: [corners] };
}

/** The outline of a report's region as one path, in px of the slide. */
export function regionPath(region) {
  const { type, coordinates } = geometryOf(region);
  return pathOf(type === "MultiPolygon" ? coordinates.flat() : coordinates);
}
