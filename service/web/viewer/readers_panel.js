// Who reads, where two people read an analysis: whose reading is shown, and how far both agree once they have signed.

import { fill, h } from "./dom.js";
import { number, plural } from "./format.js";
import { reviewerName } from "./reviewer.js";

export function createReadersPanel(review) {
  const element = h("section", { class: "readers", "aria-label": "Readers" });
  let drawn = "";

  function draw() {
    const told = review.server?.second_reading;
    const state = JSON.stringify([told, reviewerName(), told && stillOpen(review, told)]);
    if (state === drawn) return; // else what is open would close
    drawn = state;
    fill(element, told && h("p", {}, readingWords(review, told)), told?.agreement && agreement(told));
  }

  return { element, draw };
}

function readingWords(review, told) {
  if (told.agreement) {
    const { first, second } = told.agreement;
    const left = stillOpen(review, told);
    return [
      h("strong", {}, `Consensus of ${first.reviewer} and ${second.reviewer}`),
      `: they differ on ${plural(told.disagreements.length, "figure")}`,
      told.disagreements.length ? `, ${number(left)} to decide.` : ".",
    ];
  }
  if (!told.reading) {
    return reviewerName()
      ? "Two people read this; what you decide counts once both have signed."
      : "Two people read this, each alone. Your first decision asks for your name.";
  }
  const other = told.reading === "first" ? "second" : "first";
  const has = (name) => (told.signed.includes(name) ? "has signed" : "has not signed yet");
  const own = told.signed.includes(told.reading) ? "You have signed" : "You have not signed yet";
  return [h("strong", {}, `The ${told.reading} reading`), `. ${own}; the ${other} reader ${has(other)}.`];
}

/** How many of the figures that the readers differ on are not decided. */
function stillOpen(review, { disagreements }) {
  const ids = new Set(disagreements ?? []);
  return review.figures.filter((figure) => ids.has(figure.id) && figure.decision === null).length;
}

function agreement({ agreement: found }) {
  const { first, second, kappa } = found;
  const classOf = { true: "high", false: "low", null: "none" };
  const sameClass = { true: "the same class", false: "different classes", null: "no two classes to compare" };
  const row = (name, ...values) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, name),
      values.map((value) => h("td", {}, value)),
    );
  const reader = (each) => row(each.reviewer, number(each.total), number(each.mai), classOf[each.high_risk]);
  const headings = ["Reader", "Mitoses", "MAI", "Class"].map((text) => h("th", { scope: "col" }, text));
  const likely = found.interval ? ` (${range(found.interval)}, 95 of 100)` : "";
  const words = kappa === null ? "none, as all figures are of one class" : `${number(kappa, 2)}${likely}`;
  return h(
    "details",
    {},
    h("summary", {}, `Agreement: kappa ${words}`),
    h("table", {}, h("thead", {}, h("tr", {}, headings)), h("tbody", {}, reader(first), reader(second))),
    h(
      "p",
      {},
      `Counted by both ${number(found.both)}, by the first only ${number(found.first_only)}, `,
      `by the second only ${number(found.second_only)}, by neither ${number(found.neither)}; `,
      `${sameClass[found.same_class]}.`,
    ),
  );
}

const range = ([low, high]) => `${number(low, 2)} to ${number(high, 2)}`;
