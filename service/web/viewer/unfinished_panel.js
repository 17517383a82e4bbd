// The status of an analysis that has no result, yet or for ever.

import { statusElements } from "./analysis_status.js";
import { UNFINISHED } from "./contract.js";
import { fill, h } from "./dom.js";
import { watchAnalyses } from "./events.js";

const WAITS = "It begins as soon as a worker is free. The slide can be looked at until then.";
const NO_WORKER = "No worker is alive: it stays waiting. Tell the people who run the service.";

/** `onSucceeded(analysis)` and `onDeleted()` tell of its end. */
export function createUnfinishedPanel({ analysis: first, onSucceeded, onDeleted }) {
  const element = h("div", { class: "standing" });
  let analysis = first;
  let isAlive = true; // a worker
  let stop = () => {};

  function draw() {
    const waits = analysis.status === "queued" ? h("p", { class: "quiet" }, isAlive ? WAITS : NO_WORKER) : null;
    fill(element, h("h2", {}, "Analysis"), statusElements(analysis), waits);
  }

  draw();
  if (UNFINISHED.includes(analysis.status)) {
    stop = watchAnalyses({
      onStatus: (now) => {
        if (now.id !== analysis.id) return;
        analysis = now;
        draw();
        if (now.status !== "succeeded") return;
        stop();
        onSucceeded(now);
      },
      onDeleted: (id) => id === analysis.id && onDeleted(),
      onWorkers: (alive) => {
        isAlive = alive > 0;
        draw();
      },
    });
  }
  return { element, close: () => stop() };
}
