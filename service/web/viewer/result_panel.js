// What was counted and how: every count with its definition, warnings, model, threshold, exports, who decided what.

import { get } from "./api.js";
import { titleOf, wordsFor } from "./definitions.js";
import { fill, h } from "./dom.js";
import { exportButtons } from "./exports.js";
import { duration, interval, number, plural, when } from "./format.js";
import { RESEARCH_USE } from "./research_use.js";

export function resultPanel({ report, analysis, review, goTo, onSpots }) {
  const element = h("div", { class: "result" });
  let log = null;
  let card = null;

  get("v1/models").then(
    ({ models }) => {
      card = models.find((each) => each.id === report.model.id) ?? null;
      draw();
    },
    () => {},
  );

  async function loadLog(details) {
    if (!details.open) return;
    log = (await get(`v1/analyses/${analysis.id}/review`).catch(() => null))?.entries ?? null;
    draw();
  }

  let drawn = "";
  function draw() {
    const { server } = review;
    const now = JSON.stringify([server?.revision, server?.status, Boolean(card), log?.length]);
    if (now === drawn) return;
    drawn = now;
    const counted = server ?? report;
    fill(element, signed(), counts(counted), scores(counted), warnings(), exports(), history(), method());
  }

  function signed() {
    const { server } = review;
    if (!server) return null;
    if (!server.signed)
      return h(
        "p",
        { class: "badge-line" },
        h("span", { class: "badge preliminary" }, "preliminary"),
        " Nobody has signed this result.",
      );
    const { reviewer, organization, at, revision } = server.signed;
    const later = server.revision - revision;
    return h(
      "p",
      { class: "badge-line" },
      h("span", { class: `badge ${server.status}` }, server.status),
      ` Signed by ${reviewer}${organization ? `, ${organization}` : ""}, ${when(at)}.`,
      later > 0
        ? h(
            "strong",
            {},
            ` ${plural(later, "change")} since then; the signed version stays valid until it is signed again.`,
          )
        : null,
    );
  }

  function counts(counted) {
    const { counts: all, mai } = counted;
    const risk = { true: "10 or more: high risk", false: "below 10" }[mai.high_risk] ?? "too little tissue for a class";
    return h(
      "section",
      { "aria-label": "Counts" },
      h(
        "dl",
        { class: "numbers" },
        h("div", {}, h("dt", {}, "Mitoses"), h("dd", { dataset: { count: "total" } }, number(all.total))),
        h("div", {}, h("dt", {}, "per mm²"), h("dd", {}, number(all.per_mm2, 1))),
        h("div", {}, h("dt", {}, "MAI"), h("dd", { dataset: { count: "mai" } }, number(mai.count))),
      ),
      h(
        "p",
        {},
        `MAI ${number(mai.count)} (95 % interval ${interval(mai.interval)}) in ${number(mai.area_mm2, 2)} mm²: ${risk}`,
        mai.near_cutoff ? h("strong", {}, ", near the cut-off") : null,
        `. Examined: ${number(report.tissue.examined_mm2, 2)} mm² of tissue${report.region ? " in the region" : ""}.`,
      ),
      mai.alternatives?.length
        ? h(
            "p",
            { class: "spots" },
            "Hot-spots: ",
            spotButton(mai.hotspot, mai.count, "MAI"),
            mai.alternatives.map((each, place) => spotButton(each.hotspot, each.count, `${place + 2}.`)),
          )
        : mai.hotspot
          ? h("p", { class: "spots" }, "Hot-spot: ", spotButton(mai.hotspot, mai.count, "MAI"))
          : null,
    );
  }

  const spotButton = (place, count, name) =>
    h("button", { type: "button", onclick: () => goTo(place) }, `${name} ${number(count)}`);

  function scores(counted) {
    const rows = counted.scores.map((each) =>
      h(
        "tr",
        {},
        h(
          "th",
          { scope: "row" },
          titleOf(each.definition),
          h("span", { class: "quiet" }, `${wordsFor(each.definition)} Table: ${each.table_version}.`),
        ),
        h(
          "td",
          {},
          number(each.count),
          h("span", { class: "quiet", title: "95 % interval" }, each.interval.map((end) => number(end, 1)).join("–")),
        ),
        h("td", {}, number(each.area_mm2, 2)),
        h(
          "td",
          {},
          each.score === null ? (each.area_sufficient ? "none" : "too little tissue") : number(each.score),
          each.near_cutoff ? h("span", { class: "quiet" }, "near a cut-off") : null,
        ),
        h(
          "td",
          {},
          each.hotspot
            ? h(
                "button",
                {
                  type: "button",
                  class: "plain",
                  "aria-label": `Show the window of ${titleOf(each.definition)}`,
                  onclick: () => (onSpots(each), goTo(each.hotspot)),
                },
                "Show",
              )
            : null,
        ),
      ),
    );
    return h(
      "details",
      { class: "scores", open: true },
      h("summary", {}, "By other definitions"),
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ["Definition", "Count", "mm²", "Score"].map((text) => h("th", { scope: "col" }, text)),
            h("td"),
          ),
        ),
        h("tbody", {}, rows),
      ),
    );
  }

  function warnings() {
    if (!report.warnings.length) return null;
    return h(
      "section",
      { class: "warnings", "aria-label": "Warnings" },
      report.warnings.map(({ code, message }) => h("p", {}, h("strong", {}, `${code}: `), message)),
    );
  }

  function exports() {
    return h("section", {}, h("h2", {}, "Export"), exportButtons(analysis.id, report.slide.name));
  }

  function history() {
    const told = { accept: "accepted", reject: "rejected", clear: "took back", add: "added", sign: "signed" };
    const entries = log
      ?.slice()
      .reverse()
      .map((each) =>
        h(
          "li",
          {},
          `${when(each.at)}: ${each.reviewer} ${told[each.action]}${each.id ? ` no. ${each.id}` : ""}${each.reason ? ` (${each.reason})` : ""}`,
        ),
      );
    const details = h(
      "details",
      { class: "log", open: log !== null },
      h("summary", {}, "Who decided what"),
      entries?.length
        ? h("ol", { reversed: true }, entries)
        : h("p", { class: "quiet" }, log ? "Nobody has decided anything yet." : ""),
    );
    details.addEventListener("toggle", () => log === null && loadLog(details));
    return details;
  }

  function method() {
    const { model, slide, software } = report;
    const facts = [
      ["Model", `${model.id}, at ${model.mpp} µm per pixel`],
      ["Weights (SHA-256)", h("code", {}, model.sha256)],
      [
        "Threshold",
        `${number(model.threshold, 2)}${card && card.threshold !== model.threshold ? `, asked for; the model's own is ${number(card.threshold, 2)}` : ""}`,
      ],
      ["How it was chosen", card?.threshold_note ?? "not known"],
      [
        "Slide",
        `${slide.name}, ${slide.vendor}, ${number(slide.width)} × ${number(slide.height)} px, ${number(slide.mpp[0], 4)} µm per pixel (${slide.mpp_source})`,
      ],
      ["Slide (SHA-256)", h("code", {}, slide.sha256)],
      [
        "Software",
        `${software.name} ${software.version}${software.commit ? `, ${software.commit.slice(0, 12)}` : ""}, ${duration(report.analysis.seconds)} on ${when(report.analysis.created_at)}`,
      ],
      card?.limits
        ? [
            "Limits",
            h(
              "ul",
              {},
              card.limits.map((each) => h("li", {}, each)),
            ),
          ]
        : null,
    ];
    return h(
      "details",
      { class: "method", open: true },
      h("summary", {}, "Method"),
      h(
        "dl",
        { class: "facts" },
        facts.filter(Boolean).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
      ),
      h("p", { class: "research" }, RESEARCH_USE),
    );
  }

  return { element, draw };
}
