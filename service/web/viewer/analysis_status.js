// The status of an analysis in words: its progress, or why it failed and what to do.

import { HOLD_WORDS, STATUS_WORDS } from "./contract.js";
import { h } from "./dom.js";
import { duration, number } from "./format.js";
import { advice } from "./problems.js";

/** Why a result is held, in a line each. */
export const holdReasons = ({ reasons }) =>
  reasons.map(({ code, detail }) => h("span", { class: "quiet" }, `${HOLD_WORDS[code] ?? code}: ${detail}`));

export function statusElements(analysis) {
  const { status, progress, seconds_left: secondsLeft, error } = analysis;
  if (status === "running") {
    const done = `${number(100 * progress)} %`;
    return [
      h("progress", { max: 1, value: progress, "aria-label": `Analysis of ${analysis.slide_name}` }),
      h("span", { class: "quiet" }, secondsLeft === null ? done : `${done}, about ${duration(secondsLeft)} left`),
    ];
  }
  if (status === "failed") {
    const [what, why] = [`Failed. ${advice(error?.code)}`, error?.detail ?? ""];
    return [h("div", { class: "problem" }, h("strong", {}, what), h("span", { class: "quiet" }, why))];
  }
  const badge = h("span", { class: `badge ${status}` }, STATUS_WORDS[status] ?? status);
  return analysis.held ? [badge, h("span", { class: "badge urgent" }, "held"), holdReasons(analysis.held)] : [badge];
}
