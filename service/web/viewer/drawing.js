// Drawing areas on the slide: rectangles, polygons, freehand; what is drawn stays until it is taken away.

import { colour } from "./dom.js";
import { pathOf } from "./overlay.js";
import { listenToPointer } from "./pointer.js";

const STEP_PX = 3; // of the screen, between two corners of a freehand line
const CLOSE_PX = 12; // this near to the first corner, a click closes a polygon

/** `onDrawn(ring, kind)` is given a closed ring [[x, y], ...] in level-0 px from the corner. `shapes()`: what there is. */
export function createDrawing({ stage, deepZoom, overlay, shapes, onDrawn, onEnd }) {
  const [wantedColour, excludedColour] = [colour("region"), colour("excluded")];
  let corners = []; // of what is being drawn
  let kind = null;
  let stops = [];

  const screenPx = (one, other) => Math.hypot(one[0] - other[0], one[1] - other[1]) * deepZoom.frame().zoom;
  const pointOf = ({ x, y }) => [Math.round(x), Math.round(y)];

  function rectangle([left, top], [right, bottom]) {
    return [
      [left, top],
      [right, top],
      [right, bottom],
      [left, bottom],
    ];
  }

  const pointers = {
    rectangle: {
      down: (place) => set([pointOf(place), pointOf(place)]),
      move: (place, isPressed) => isPressed && set([corners[0], pointOf(place)]),
      up: (place) => finish(rectangle(corners[0], pointOf(place))),
    },
    freehand: {
      down: (place) => set([pointOf(place)]),
      move: (place, isPressed) => {
        const point = pointOf(place);
        if (isPressed && screenPx(corners.at(-1), point) >= STEP_PX) set([...corners, point]);
      },
      up: () => finish(corners),
    },
    polygon: { down: (place) => addCorner(pointOf(place)), double: () => finish(corners) },
  };

  function set(next) {
    corners = next;
    overlay.redraw();
  }

  function addCorner(point) {
    if (corners.length > 2 && screenPx(corners[0], point) < CLOSE_PX) finish(corners);
    else if (!corners.length || screenPx(corners.at(-1), point) > 1) set([...corners, point]);
  }

  function finish(ring) {
    const drawn = kind;
    const isArea = ring.length > 2 && new Set(ring.map(String)).size > 2;
    stop();
    if (isArea) onDrawn([...ring, ring[0]], drawn);
  }

  function begin(wanted) {
    stop();
    kind = wanted;
    stops = [listenToPointer(stage, deepZoom, pointers[kind])];
    document.addEventListener("keydown", onKey, { capture: true });
    overlay.set({ cross: kind === "polygon" });
  }

  function stop() {
    if (!kind) return;
    for (const end of stops) end();
    document.removeEventListener("keydown", onKey, { capture: true });
    overlay.set({ cross: false });
    kind = null;
    set([]);
    onEnd();
  }

  /** By keyboard: Enter puts a polygon's corner under the cross, Backspace takes it back, Space closes it. */
  function onKey(event) {
    const isOnButton = event.target.closest("button, a, input, select, summary");
    const act = {
      Escape: stop,
      Enter: () => kind === "polygon" && !isOnButton && addCorner(pointOf(deepZoom.view())),
      Backspace: () => !isOnButton && set(corners.slice(0, -1)),
      " ": () => kind === "polygon" && !isOnButton && finish(corners),
    }[event.key];
    if (!act || (isOnButton && event.key !== "Escape")) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  function paint({ context, frame, drawOutline, strokeWithHalo, drawName }) {
    for (const { name, rings, isExcluded } of shapes()) {
      const strokeColour = isExcluded ? excludedColour : wantedColour;
      drawOutline(frame, pathOf(rings), { strokeColour, widthPx: 3, dashPx: isExcluded ? [3, 4] : [] });
      const [x, y] = rings[0][0];
      drawName(frame, isExcluded ? `without ${name}` : name, frame.x + x * frame.zoom, frame.y + y * frame.zoom - 6);
    }
    if (!corners.length) return;
    const draft = kind === "rectangle" ? rectangle(corners[0], corners.at(-1)) : corners;
    const path = new Path2D();
    draft.forEach(([x, y], index) => {
      const [across, down] = [frame.x + x * frame.zoom, frame.y + y * frame.zoom];
      if (index) path.lineTo(across, down);
      else path.moveTo(across, down);
      if (kind === "polygon") path.rect(across - 3, down - 3, 6, 6);
      if (kind === "polygon") path.moveTo(across, down);
    });
    if (kind === "rectangle") path.closePath();
    strokeWithHalo(context, path, wantedColour, 2);
  }

  const stopPainting = overlay.addPainter(paint);
  return {
    begin,
    stop,
    get kind() {
      return kind;
    },
    close() {
      stop();
      stopPainting();
    },
  };
}
