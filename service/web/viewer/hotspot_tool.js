// A hot-spot of one's own: dragged over the slide, counted by the service by the rule of the automatic one, beside it.

import { get } from "./api.js";
import { classWords, windowWords } from "./counted_words.js";
import { definitionOf, loadDefinitions } from "./definitions.js";
import { announce, colour, fill, h } from "./dom.js";
import { number } from "./format.js";
import { listenToPointer } from "./pointer.js";

/** `automatic()` gives the review's or report's MAI as it stands; `goTo(place)` shows a window. */
export async function createHotspotTool({ stage, deepZoom, overlay, mpp, automatic, goTo, changes }) {
  const known = await loadDefinitions().catch(() => null);
  const strokeColour = colour("own-hotspot");
  const own = h("td", {}, "Drag the circle; Enter puts it in the middle of the view.");
  const other = h("td", {});
  const snapButton = h("button", { type: "button", onclick: snapBack }, "Snap back");
  const element = h(
    "div",
    { class: "line" },
    h(
      "table",
      { class: "own-hotspot" },
      h("tbody", {}, [
        h("tr", {}, h("th", { scope: "row" }, "Placed"), own),
        h("tr", {}, h("th", { scope: "row" }, "Automatic"), other),
      ]),
    ),
    snapButton,
  );
  let place = null; // its centre, as detections count
  let found = null; // what the service counted there, or while it is asked, where the circle was before
  let wanted = null; // the place that is to be counted next
  let isAsking = false;
  let stops = [];

  const words = (mai) =>
    `${number(mai.count)} in ${windowWords(mai)}: ${classWords(mai, definitionOf(known, mai)) || "no class"}` +
    (mai.near_cutoff ? ", near the cut-off" : "");

  function draw() {
    const mai = automatic();
    fill(other, mai.hotspot ? words(mai) : "no mitoses, no window");
    if (found) fill(own, words(found), isAsking ? " …" : "");
    element.dataset.count = found?.count ?? "";
    overlay.redraw();
  }

  function moveTo(x, y) {
    place = { x: Math.max(0, x), y: Math.max(0, y) };
    wanted = place;
    ask();
    draw();
  }

  /** Ask for the last place only: the pointer is faster than the service. */
  async function ask() {
    if (isAsking) return;
    isAsking = true;
    while (wanted) {
      const { x, y } = wanted;
      wanted = null;
      try {
        found = await get(changes.address("hotspot", { x: x.toFixed(2), y: y.toFixed(2) }));
      } catch (error) {
        found = null; // that of another place is none of this one
        fill(own, `Not counted: ${error.message}`);
      }
      isAsking = wanted !== null;
      draw();
    }
  }

  function snapBack() {
    const { hotspot } = automatic();
    if (!hotspot) return;
    moveTo(hotspot.x, hotspot.y);
    goTo(hotspot);
  }

  function paint({ context, frame, strokeWithHalo, drawName }) {
    if (!place) return;
    const radius = automatic().hotspot?.radius_um ?? found?.hotspot.radius_um;
    if (!radius) return;
    const [x, y] = [frame.x + (place.x + 0.5) * frame.zoom, frame.y + (place.y + 0.5) * frame.zoom];
    const [across, down] = mpp.map((each) => (radius / each) * frame.zoom);
    const path2d = new Path2D();
    path2d.ellipse(x, y, across, down, 0, 0, 2 * Math.PI);
    strokeWithHalo(context, path2d, strokeColour, 3);
    drawName(frame, `placed: ${found ? number(found.count) : ""}${isAsking ? " …" : ""}`, x, y);
  }

  const recount = () => {
    wanted = place;
    if (place) ask();
    draw();
  };
  return {
    element,
    start() {
      const centre = automatic().hotspot ?? middle();
      moveTo(centre.x, centre.y);
      const follow = ({ x, y }) => moveTo(x - 0.5, y - 0.5);
      const pointer = {
        down: follow,
        move: (at, isPressed) => isPressed && follow(at),
        up: () => announce(own.textContent),
      };
      changes.addEventListener("change", recount);
      stops = [overlay.addPainter(paint), listenToPointer(stage, deepZoom, pointer)];
      draw();
    },
    stop() {
      changes.removeEventListener("change", recount);
      for (const stop of stops) stop();
      place = null;
    },
    enter() {
      moveTo(middle().x, middle().y);
    },
  };

  function middle() {
    const { x, y } = deepZoom.view();
    return { x: x - 0.5, y: y - 0.5 };
  }
}
