// A result that is held: nothing of it is sent until a person has said whose it is, and why.

import { holdReasons } from "./analysis_status.js";
import { call } from "./api.js";
import { REASON_LENGTH } from "./contract.js";
import { askFor } from "./dialog.js";
import { announce, fill, h } from "./dom.js";
import { dateAndTime } from "./format.js";
import { may } from "./login.js";
import { NAME_INPUT, keepReviewer, reviewerName } from "./reviewer.js";

const HELD = "Held: not sent, and not to be had as FHIR, HL7, DICOM or PDF, until a person decides.";

/** `onDecided(analysis)` is told what the service says of the analysis afterwards. */
export function createHoldPanel(onDecided) {
  const element = h("div", { class: "problem hold", hidden: true });

  function decide(analysis, { title, words, yes, path, order }) {
    const { held } = analysis;
    return askFor({
      title,
      words: [...words, ...held.reasons.map(({ detail }) => detail)],
      fields: [
        { name: "reviewer", label: "Name", properties: { ...NAME_INPUT, value: reviewerName() ?? "" } },
        { name: "reason", label: "Reason", properties: { required: true, maxlength: String(REASON_LENGTH) } },
      ],
      yes,
      act: async ({ reviewer, reason }) => {
        const json = { reviewer, reason, hold: held.id, ...(order ? { order } : {}) };
        const response = await call(`v1/analyses/${analysis.id}/${path}`, { method: "POST", json });
        keepReviewer(reviewer);
        onDecided(await response.json());
        announce(order ? "given to the other order" : "released");
      },
    });
  }

  function draw(analysis) {
    const { held } = analysis;
    element.hidden = !held;
    if (!held) return;
    const release = {
      title: "Release this result",
      words: ["You have looked, and it is of the order that it has. What waits is sent for that order."],
      yes: "Release",
      path: "release",
    };
    const assignTo = (order) => ({
      title: "Give this result to the other order",
      words: [
        `It is taken back wherever it was told, and told for order ${order}.`,
        "If it was signed, that was for the first patient: it has to be signed again.",
      ],
      yes: "Give to this order",
      path: "assignment",
      order,
    });
    const others = [...new Set(held.reasons.map((each) => each.order_id))].filter(
      (order) => order && order !== analysis.order_id,
    );
    const button = (text, asked) => h("button", { type: "button", onclick: () => decide(analysis, asked) }, text);
    fill(
      element,
      h("strong", {}, HELD),
      holdReasons(held),
      h("span", { class: "quiet" }, `Since ${dateAndTime(held.since)}.`),
      may("review") &&
        h(
          "div",
          { class: "buttons" },
          button("Release…", release),
          others.map((order) => button(`Give to order ${order}…`, assignTo(order))),
        ),
    );
  }

  return { element, draw };
}
