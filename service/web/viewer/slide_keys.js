// Keys that move the slide: arrows, plus, minus, 0.

import { isTyping } from "./dom.js";

const STEP = 0.15; // of the view's width and height
const ZOOM = 1.5;

/** Listen to the page's keys; returns a function that stops it. */
export function listenToSlideKeys(deepZoom) {
  const onKey = (event) => {
    if (isTyping(event)) return;
    const usesArrows = "[role=listbox], [role=tablist], [type=range]";
    if (event.key.startsWith("Arrow") && event.target.closest(usesArrows)) return;
    const act = {
      ArrowLeft: () => deepZoom.move(-STEP, 0),
      ArrowRight: () => deepZoom.move(STEP, 0),
      ArrowUp: () => deepZoom.move(0, -STEP),
      ArrowDown: () => deepZoom.move(0, STEP),
      "+": () => deepZoom.zoomBy(ZOOM),
      "=": () => deepZoom.zoomBy(ZOOM),
      "-": () => deepZoom.zoomBy(1 / ZOOM),
      0: () => deepZoom.home(),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  };
  document.addEventListener("keydown", onKey);
  return () => document.removeEventListener("keydown", onKey);
}
