// What is drawn over the slide, on one canvas: rings round figures, tissue, hot-spot, region, heat map.
//
// A decision is told by form as well as by colour: accepted is a double ring, rejected is crossed out, added is a square,
// below the threshold is dashed.

const RING_UM = 13; // radius: a mitosis with some room round it
const LEAST_PX = 4.5; // smaller rings would hide what they mark; dots then
const MANY = 400;
const COLOURS = {
  open: "#00b4d8",
  accepted: "#2dc653",
  rejected: "#b0b0b0",
  added: "#ff5dd2",
  candidate: "#ffd60a",
  hotspot: "#ff8800",
  tissue: "#1e6fd9",
  region: "#222222",
};
const ORDER = ["candidate", "rejected", "open", "accepted", "added"];

export const kindOf = (item) => {
  if (item.candidate) return "candidate";
  if (item.decision === "rejected") return "rejected";
  if (item.origin === "person") return "added";
  return item.decision === "accepted" ? "accepted" : "open";
};

export function overlay(stage, zoomed, mpp) {
  const canvas = document.createElement("canvas");
  canvas.className = "overlay";
  canvas.setAttribute("aria-hidden", "true"); // all of it is in the lists beside the slide
  stage.append(canvas);
  const context = canvas.getContext("2d");
  const layers = {
    detections: { on: true, opacity: 1 },
    rejected: { on: true, opacity: 0.8 },
    hotspot: { on: true, opacity: 1 },
    tissue: { on: false, opacity: 0.8 },
    heatmap: { on: false, opacity: 0.6 },
  };
  const drawn = {
    items: [],
    counted: null,
    hotspots: [],
    tissue: null,
    heat: null,
    region: null,
    selected: null,
    cross: false,
  };
  const stamps = new Map();
  let asked = 0;

  function draw() {
    asked = 0;
    const seen = zoomed.frame();
    const { width, height } = zoomed.size();
    const density = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * density) || canvas.height !== Math.round(height * density)) {
      canvas.width = Math.round(width * density);
      canvas.height = Math.round(height * density);
    }
    context.setTransform(density, 0, 0, density, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!seen) return;
    const frame = { ...seen, width, height, density };
    if (layers.heatmap.on && drawn.heat) heat(frame);
    if (layers.tissue.on && drawn.tissue) tissue(frame);
    if (drawn.region) rectangle(frame, drawn.region, COLOURS.region, 1.5, [8, 5]);
    if (layers.hotspot.on) for (const spot of drawn.hotspots) hotspot(frame, spot);
    rings(frame);
    if (drawn.cross) crosshair(frame);
  }

  function heat({ x, y, zoom }) {
    const { image, place } = drawn.heat;
    context.globalAlpha = layers.heatmap.opacity;
    context.imageSmoothingEnabled = zoom * 16 < 24; // cells, once they are large enough to be told apart
    context.drawImage(image, x + place.x * zoom, y + place.y * zoom, place.width * zoom, place.height * zoom);
    context.globalAlpha = 1;
  }

  function tissue({ x, y, zoom, density }) {
    context.save();
    context.setTransform(density * zoom, 0, 0, density * zoom, density * x, density * y);
    context.globalAlpha = layers.tissue.opacity;
    context.strokeStyle = COLOURS.tissue;
    context.lineWidth = 2 / zoom;
    context.stroke(drawn.tissue);
    context.restore();
  }

  function rectangle({ x, y, zoom }, box, colour, width, dash = []) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.setLineDash(dash);
    context.strokeRect(x + box.x * zoom, y + box.y * zoom, box.width * zoom, box.height * zoom);
    context.setLineDash([]);
  }

  function hotspot({ x, y, zoom, height }, { place, label }) {
    const [centreX, centreY] = [x + (place.x + 0.5) * zoom, y + (place.y + 0.5) * zoom];
    const half =
      place.shape === "circle" ? [place.radius_um, place.radius_um] : [place.width_um / 2, place.height_um / 2];
    const [across, down] = half.map((size, axis) => (size / mpp[axis]) * zoom);
    context.globalAlpha = layers.hotspot.opacity;
    const path = new Path2D();
    if (place.shape === "circle") path.ellipse(centreX, centreY, across, down, 0, 0, 2 * Math.PI);
    else path.rect(centreX - across, centreY - down, 2 * across, 2 * down);
    twice(path, COLOURS.hotspot, 2.5);
    if (down > 1.5 * height) {
      context.globalAlpha = 1;
      return; // its name would tell nothing here
    }
    context.font = "600 13px system-ui, sans-serif";
    context.textAlign = "center";
    context.lineWidth = 4;
    context.strokeStyle = "#ffffff";
    const above = Math.max(centreY - down - 8, Math.min(18, centreY)); // inside, where the top is out of sight
    context.strokeText(label, centreX, above);
    context.fillStyle = "#a34700";
    context.fillText(label, centreX, above);
    context.globalAlpha = 1;
  }

  /** A coloured line on a white one, to be seen on any stain. */
  function twice(path, colour, width, on = context) {
    on.strokeStyle = "rgba(255, 255, 255, 0.85)";
    on.lineWidth = width + 2;
    on.stroke(path);
    on.strokeStyle = colour;
    on.lineWidth = width;
    on.stroke(path);
  }

  function rings(frame) {
    const radius = Math.min(70, (RING_UM / mpp[0]) * frame.zoom);
    const places = Object.fromEntries(ORDER.map((kind) => [kind, []]));
    for (const item of drawn.items) {
      if (item.key === drawn.selected?.key) continue;
      const x = frame.x + (item.x + 0.5) * frame.zoom;
      const y = frame.y + (item.y + 0.5) * frame.zoom;
      if (x < -radius || y < -radius || x > frame.width + radius || y > frame.height + radius) continue;
      places[kindOf(item)].push(x, y);
    }
    const many = ORDER.reduce((sum, kind) => sum + places[kind].length / 2, 0) > MANY;
    for (const kind of ORDER) {
      if (!layers.detections.on || !places[kind].length || (kind === "rejected" && !layers.rejected.on)) continue;
      context.globalAlpha = layers.detections.opacity * (kind === "rejected" ? layers.rejected.opacity : 1);
      if (many) stamp(places[kind], kind, radius, frame.density);
      else {
        const path = new Path2D();
        for (let at = 0; at < places[kind].length; at += 2)
          mark(path, kind, places[kind][at], places[kind][at + 1], radius);
        stroke(path, kind, radius);
      }
    }
    context.globalAlpha = 1;
    if (drawn.selected && layers.detections.on) select(frame, drawn.selected, Math.max(radius, 12));
  }

  /** Thousands of marks: drawn once, then copied, to whole px of the screen. */
  function stamp(places, kind, radius, density) {
    const half = Math.ceil(radius + 4);
    const key = `${kind} ${radius.toFixed(1)} ${density}`;
    if (!stamps.has(key)) {
      if (stamps.size > 40) stamps.clear();
      const one = document.createElement("canvas");
      one.width = one.height = 2 * half * density;
      const painter = one.getContext("2d");
      painter.scale(density, density);
      const path = new Path2D();
      mark(path, kind, half, half, radius);
      stroke(path, kind, radius, painter);
      stamps.set(key, one);
    }
    const one = stamps.get(key);
    context.setTransform(1, 0, 0, 1, 0, 0);
    for (let at = 0; at < places.length; at += 2) {
      context.drawImage(one, Math.round((places[at] - half) * density), Math.round((places[at + 1] - half) * density));
    }
    context.setTransform(density, 0, 0, density, 0, 0);
  }

  function stroke(path, kind, radius, on = context) {
    if (radius < LEAST_PX) {
      on.fillStyle = COLOURS[kind];
      on.fill(path);
      return;
    }
    if (kind === "candidate") on.setLineDash([4, 3]);
    if (radius < 10) {
      on.strokeStyle = COLOURS[kind];
      on.lineWidth = 2;
      on.stroke(path);
    } else twice(path, COLOURS[kind], 2, on);
    on.setLineDash([]);
  }

  function select(frame, item, radius) {
    const centreX = frame.x + (item.x + 0.5) * frame.zoom;
    const centreY = frame.y + (item.y + 0.5) * frame.zoom;
    const path = new Path2D();
    mark(path, kindOf(item), centreX, centreY, radius);
    for (const [across, down] of [
      [1, 0],
      [-1, 0],
      [0, 1],
      [0, -1],
    ]) {
      path.moveTo(centreX + across * (radius + 3), centreY + down * (radius + 3));
      path.lineTo(centreX + across * (radius + 12), centreY + down * (radius + 12));
    }
    twice(path, COLOURS[kindOf(item)], 3.5);
  }

  function crosshair({ width, height }) {
    const path = new Path2D();
    for (const [across, down] of [
      [1, 0],
      [-1, 0],
      [0, 1],
      [0, -1],
    ]) {
      path.moveTo(width / 2 + across * 6, height / 2 + down * 6);
      path.lineTo(width / 2 + across * 26, height / 2 + down * 26);
    }
    twice(path, COLOURS.added, 2);
  }

  const redraw = () => {
    asked ||= requestAnimationFrame(draw);
  };
  zoomed.onMove(draw); // in the same frame as the slide, else marks would swim
  const watching = new ResizeObserver(redraw);
  watching.observe(stage);

  return {
    layers,
    redraw,
    draw,
    /** Change what is drawn. */
    set(changes) {
      Object.assign(drawn, changes);
      redraw();
    },
    drawn,
    /** The item at a place of the screen, if it is near enough. */
    itemAt(x, y) {
      const frame = zoomed.frame();
      const reach = Math.max(12, Math.min(70, (RING_UM / mpp[0]) * frame.zoom));
      let best = null;
      for (const item of drawn.items) {
        const distance = Math.hypot(
          frame.x + (item.x + 0.5) * frame.zoom - x,
          frame.y + (item.y + 0.5) * frame.zoom - y,
        );
        if (distance <= reach && (!best || distance < best.distance)) best = { item, distance };
      }
      return best?.item ?? null;
    },
    close: () => watching.disconnect(),
  };
}

function mark(path, kind, x, y, radius) {
  if (radius < LEAST_PX) {
    path.rect(x - 2, y - 2, 4, 4);
    return;
  }
  if (kind === "added") path.rect(x - radius, y - radius, 2 * radius, 2 * radius);
  else {
    path.moveTo(x + radius, y);
    path.arc(x, y, radius, 0, 2 * Math.PI);
  }
  if (kind === "accepted" && radius >= 10) {
    path.moveTo(x + radius - 4, y);
    path.arc(x, y, radius - 4, 0, 2 * Math.PI);
  }
  if (kind === "rejected") {
    const reach = radius * Math.SQRT1_2;
    path.moveTo(x - reach, y + reach);
    path.lineTo(x + reach, y - reach);
  }
}

/** GeoJSON's lines as one path, in px of the slide. */
export function pathOf(lines) {
  const path = new Path2D();
  for (const line of lines) {
    line.forEach(([x, y], place) => (place ? path.lineTo(x, y) : path.moveTo(x, y)));
    path.closePath();
  }
  return path;
}
