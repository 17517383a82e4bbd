// A ruler: the length between two places, drawn with the pointer, or put at the middle of the view by Enter.

import { announce, colour, fill, h } from "./dom.js";
import { length } from "./format.js";
import { listenToPointer } from "./pointer.js";

/** `mpp` in um per level-0 px (x, y). */
export function createRuler({ stage, deepZoom, overlay, mpp }) {
  const words = h("output", {}, "Draw a line, or press Enter at each of its ends.");
  const strokeColour = colour("region");
  let ends = []; // places
  let isOpen = false; // the second end is not put yet
  let stops = [];

  const lengthUm = () => Math.hypot((ends[1].x - ends[0].x) * mpp[0], (ends[1].y - ends[0].y) * mpp[1]);

  function show() {
    if (ends.length === 2) fill(words, `Length ${length(lengthUm())}`);
    overlay.redraw();
  }

  function paint({ context, frame, strokeWithHalo, drawName }) {
    if (ends.length < 2) return;
    const [from, to] = ends.map(({ x, y }) => [frame.x + x * frame.zoom, frame.y + y * frame.zoom]);
    const path = new Path2D();
    path.moveTo(...from);
    path.lineTo(...to);
    const [across, down] = [to[0] - from[0], to[1] - from[1]];
    const longest = Math.hypot(across, down) || 1;
    for (const [x, y] of [from, to]) {
      path.moveTo(x - (down / longest) * 6, y + (across / longest) * 6);
      path.lineTo(x + (down / longest) * 6, y - (across / longest) * 6);
    }
    strokeWithHalo(context, path, strokeColour, 2);
    drawName(frame, length(lengthUm()), (from[0] + to[0]) / 2, (from[1] + to[1]) / 2 - 8);
  }

  const set = (from, to) => {
    ends = [from, to];
    show();
  };
  return {
    element: words,
    start() {
      const pointer = {
        down: (place) => set(place, place),
        move: (place, isPressed) => isPressed && set(ends[0], place),
        up: (place) => {
          isOpen = false;
          set(ends[0], place);
        },
      };
      stops = [overlay.addPainter(paint), listenToPointer(stage, deepZoom, pointer)];
    },
    stop() {
      for (const stop of stops) stop();
      ends = [];
    },
    enter() {
      const { x, y } = deepZoom.view();
      if (isOpen) set(ends[0], { x, y });
      else set({ x, y }, { x, y });
      isOpen = !isOpen;
      announce(isOpen ? "one end is put" : words.textContent);
    },
  };
}
