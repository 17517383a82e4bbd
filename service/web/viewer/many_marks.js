// Thousands of marks at once: copied instead of drawn one by one, and drawn once for as long as the slide is only moved.

import { turned } from "./deep_zoom.js";

const KEPT_STAMPS = 40;
const MARGIN_PX = 200; // round the screen, of what is drawn for moving
const SAME_ZOOM = 1e-9; // relative: a move changes the last digits

/** What the overlay draws with is given: its context, how it draws marks, and the most that it draws. */
export function createManyMarks({ context, drawMarks, drawPaths, turnContext, most }) {
  const stamps = new Map();
  let sheet = null; // the marks as they were drawn, with their place and zoom
  let lastZoom = 0;

  const isZoom = (zoom, other) => Math.abs(zoom / other - 1) < SAME_ZOOM;

  function draw(frame) {
    const isMoved = isZoom(lastZoom, frame.zoom) && !frame.turn;
    lastZoom = frame.zoom;
    if (isMoved) drawSheet(frame);
    else drawMarks(context, frame, drawStamps);
  }

  /** By whole px of the screen, as stamps are. */
  function drawSheet(frame) {
    const { x, y, zoom, density } = frame;
    const apart = sheet ? Math.max(Math.abs(x - sheet.x), Math.abs(y - sheet.y)) : Infinity;
    if (apart > MARGIN_PX || !isZoom(sheet.zoom, zoom)) sheet = createSheet(frame);
    context.setTransform(1, 0, 0, 1, 0, 0);
    const [across, down] = [x - sheet.x, y - sheet.y].map((by) => Math.round((by - MARGIN_PX) * density));
    context.drawImage(sheet.canvas, across, down);
    turnContext(frame);
  }

  function createSheet(frame) {
    const { x, y, zoom, density } = frame;
    const [right, bottom] = [frame.width + 2 * MARGIN_PX, frame.height + 2 * MARGIN_PX];
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: right * density, height: bottom * density });
    const painter = canvas.getContext("2d");
    painter.scale(density, density);
    const seen = { left: 0, top: 0, right, bottom };
    drawMarks(painter, { ...frame, x: x + MARGIN_PX, y: y + MARGIN_PX, seen }, drawStamps);
    return { x, y, zoom, canvas };
  }

  /** One is drawn, then copied, to whole px of the screen. */
  function drawStamps(painter, centres, kind, radius, frame) {
    if (centres.length <= most) {
      drawPaths(painter, centres, kind, radius);
      return;
    }
    const { density } = frame;
    const half = Math.ceil(radius + 4);
    const stamp = stampOf(kind, radius, half, density);
    painter.save();
    painter.setTransform(1, 0, 0, 1, 0, 0);
    for (const centre of centres) {
      const [x, y] = turned(...centre, frame, frame.turn);
      painter.drawImage(stamp, Math.round((x - half) * density), Math.round((y - half) * density));
    }
    painter.restore();
  }

  function stampOf(kind, radius, half, density) {
    const key = `${kind} ${radius.toFixed(1)} ${density}`;
    if (stamps.has(key)) return stamps.get(key);
    if (stamps.size > KEPT_STAMPS) stamps.clear();
    const stamp = document.createElement("canvas");
    stamp.width = stamp.height = 2 * half * density;
    const painter = stamp.getContext("2d");
    painter.scale(density, density);
    drawPaths(painter, [[half, half]], kind, radius);
    stamps.set(key, stamp);
    return stamp;
  }

  return {
    draw,
    /** What is drawn has changed, but for its place. */
    forget() {
      sheet = null;
    },
  };
}
