// What a threshold costs on either side, as the model's card has it: mitoses that are missed, and calls where there are few.

import { get } from "./api.js";
import { fill, h } from "./dom.js";
import { number } from "./format.js";

let loading = null;

function loadModels() {
  loading ??= get("v1/models").catch(() => (loading = null)); // the next one asks again
  return loading;
}

/** Say what was measured at the thresholds next to one; the words stay as they are where they would be the same. */
export async function showCost(element, model, threshold) {
  element.asked = threshold;
  const known = await loadModels();
  if (element.asked !== threshold) return; // it was moved on meanwhile
  const words = known ? costWords(known.models, model, threshold) : [];
  if (words.join() === element.dataset.words) return; // else it would be read aloud at each step
  element.dataset.words = words.join();
  fill(
    element,
    words.map((line) => [h("br"), line]),
  );
}

function costWords(models, { id, sha256 }, threshold) {
  const card = models.find((each) => each.id === id && each.sha256 === sha256);
  const points = (card?.operating_points ?? []).toSorted((one, other) => one.threshold - other.threshold);
  if (!points.length) return ["What a threshold costs was not measured for this model."];
  const sides = [
    points.findLast((each) => each.threshold <= threshold),
    points.find((each) => each.threshold > threshold),
  ];
  return ["Measured on laboratories and tissue left out of training:", ...sides.filter(Boolean).map(pointWords)];
}

function pointWords({ threshold, recall, recall_interval: interval, calls_per_mm2: calls }) {
  const likely = interval ? ` (${interval.map((share) => number(100 * share)).join(" to ")})` : "";
  const found = `at ${threshold} it finds ${number(100 * recall)} of 100 mitoses${likely}`;
  return `${found} and calls ${number(calls, 1)} per mm² where there are almost none`;
}
