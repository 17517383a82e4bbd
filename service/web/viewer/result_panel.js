// The result: every count with its definition, warnings, model, threshold, exports, and who decided what.

import { get } from "./api.js";
import { ACTION_WORDS } from "./contract.js";
import { classWords, correctedWords, examinedWords, grownWords, tissueWords, windowWords } from "./counted_words.js";
import { definitionOf, loadDefinitions } from "./definitions.js";
import { fill, h } from "./dom.js";
import { dateAndTime, duration, interval, number } from "./format.js";
import { RESEARCH_USE } from "./research_use.js";

const OWN_KEY = "mitosis-definition"; // of the browser's storage

/** `goTo(place)` shows a hot-spot on the slide; `onShowScore(score, title)` draws that of another definition. */
export function createResultPanel({ report, analysis, review, goTo, onShowScore }) {
  const element = h("div", { class: "result" });
  let log = null; // entries of the review's log, once it was opened
  let card = null; // the model's, once it is loaded
  let definitions = null; // the service's, once they are loaded
  let createExportButtons = null; // once the result is looked at
  let drawn = "";

  async function loadExports() {
    ({ createExportButtons } = await import("./exports.js"));
    draw();
  }

  async function load() {
    const [models, known] = await Promise.allSettled([get("v1/models"), loadDefinitions()]);
    card = models.value?.models.find((each) => each.id === report.model.id) ?? null;
    definitions = known.value ?? null; // without them, the numbers stand alone
    draw();
  }

  async function loadLog() {
    log = (await get(review.address("review")).catch(() => null))?.entries ?? null;
    draw();
  }

  function draw() {
    const { server } = review;
    const { held } = analysis();
    const loaded = [Boolean(card), Boolean(definitions), Boolean(createExportButtons), log?.length];
    const wanted = JSON.stringify([server?.revision, server?.status, held, ...loaded]);
    if (wanted === drawn) return; // else what is open would close
    drawn = wanted;
    const counted = server ?? report;
    const exports = h("section", { class: "export" }, h("h2", {}, "Export"), createExportButtons?.(analysis(), report));
    fill(element, signature(), counts(counted), scores(counted), exports, history(), method());
  }

  function signature() {
    const { server } = review;
    if (!server) return null;
    const badge = h("span", { class: `badge ${server.status}` }, server.status);
    if (!server.signed) return h("p", { class: "badge-line" }, badge, " Nobody has signed this result.");
    const { reviewer, organization, at, revision } = server.signed;
    const note =
      " Changed since then: these counts are not signed; the signed ones stay valid until it is signed again.";
    return h(
      "p",
      { class: "badge-line" },
      badge,
      ` Signed by ${reviewer}${organization ? `, ${organization}` : ""}, ${dateAndTime(at)}.`,
      server.revision > revision && h("strong", {}, note),
    );
  }

  const intervalName = () => (definitions ? `${number(100 * definitions.confidence)} % interval` : "interval");

  function counts({ counts: all, mai }) {
    const definition = definitionOf(definitions, mai);
    const ofClass = classWords(mai, definition);
    const numbers = [
      ["Mitoses", { count: "total" }, number(all.total)],
      ["per mm²", {}, number(all.per_mm2, 1)],
      ["MAI", { count: "mai" }, number(mai.count)],
    ];
    return h(
      "section",
      { "aria-label": "Counts" },
      h(
        "dl",
        { class: "numbers" },
        numbers.map(([name, dataset, value]) => h("div", {}, h("dt", {}, name), h("dd", { dataset }, value))),
      ),
      h(
        "p",
        {},
        `MAI ${number(mai.count)} (${intervalName()} ${interval(mai.interval)}) in ${windowWords(mai)}`,
        ofClass ? `: ${ofClass}` : null,
        mai.near_cutoff ? h("strong", {}, ", near the cut-off") : null,
        `. Mitoses and per mm² are of ${examinedWords(report)}.`,
      ),
      h("p", { class: "quiet" }, correctedWords(mai)),
      mai.grown &&
        h(
          "p",
          {},
          `${grownWords(mai)} (${intervalName()} ${interval(mai.grown.interval)})`,
          `: ${classWords(mai.grown, definition)}`,
          mai.grown.near_cutoff ? h("strong", {}, ", near the cut-off") : null,
          ".",
        ),
      hotspots(mai),
    );
  }

  function hotspots({ hotspot, count, alternatives, grown }) {
    if (!hotspot) return null;
    const button = (place, value, name) =>
      h("button", { type: "button", onclick: () => goTo(place) }, `${name}: ${number(value)}`);
    const others = (alternatives ?? []).map((each, index) => button(each.hotspot, each.count, `no. ${index + 2}`));
    return h(
      "p",
      { class: "spots" },
      others.length ? "Hot-spots: " : "Hot-spot: ",
      button(hotspot, count, "MAI"),
      grown && button(grown.hotspot, grown.count, "grown"),
      others,
    );
  }

  /** The laboratory's own definition, once it was chosen, before all others. */
  function scores(counted) {
    const keyOf = (score) => `${score.definition} ${score.table_version}`;
    const own = counted.scores.find((score) => keyOf(score) === localStorage.getItem(OWN_KEY));
    const options = counted.scores.map((score) =>
      h("option", { value: keyOf(score), selected: score === own }, definitionOf(definitions, score).title),
    );
    const onchange = (event) => {
      localStorage.setItem(OWN_KEY, event.target.value);
      drawn = "";
      draw();
    };
    const select = h("select", { id: "own", onchange }, h("option", { value: "" }, "none chosen"), options);
    return h(
      "section",
      { class: "scores", "aria-label": "Scores" },
      h("div", { class: "listing" }, h("label", { for: "own" }, "Our definition"), select),
      own && scoreTable([own]),
      h(
        "details",
        { open: !own },
        h("summary", {}, "By other definitions"),
        scoreTable(counted.scores.filter((score) => score !== own)),
      ),
    );
  }

  function scoreTable(counted) {
    const headings = ["Definition", "Count", "mm²", "Score"].map((text) => h("th", { scope: "col" }, text));
    return h("table", {}, h("thead", {}, h("tr", {}, headings, h("td"))), counted.map(scoreRows));
  }

  /** A row of numbers, and one of words. */
  function scoreRows(score) {
    const { title, summary } = definitionOf(definitions, score);
    const show = () => {
      onShowScore(score, title);
      goTo(score.hotspot);
    };
    const button = { type: "button", class: "plain", "aria-label": `Show the window of ${title}`, onclick: show };
    const without = score.area_sufficient ? "none" : "too little tissue";
    const ends = score.interval.map((end) => number(end, 1)).join("–");
    const { grown } = score;
    const grownClass = grown && grown.score !== null ? `, score ${number(grown.score)}` : "";
    const cells = [
      h("th", { scope: "row" }, title),
      h("td", {}, number(score.count), h("span", { class: "quiet", title: intervalName() }, ends)),
      h("td", {}, number(score.area_mm2, 2), score.hotspot && h("span", { class: "quiet" }, tissueWords(score))),
      h(
        "td",
        {},
        score.score === null ? without : number(score.score),
        score.near_cutoff ? h("span", { class: "quiet" }, "near a cut-off") : null,
      ),
      h("td", {}, score.hotspot ? h("button", button, "Show") : null),
    ];
    const onEnough = grown ? ` ${grownWords(score)}${grownClass}.` : "";
    const words = h("td", { colspan: String(cells.length) }, `${summary} Table: ${score.table_version}.${onEnough}`);
    return h("tbody", {}, h("tr", {}, cells), h("tr", { class: "words" }, words));
  }

  function history() {
    const lines = (log ?? []).toReversed().map(({ at, reviewer, action, id, reason }) => {
      const figure = id ? ` no. ${id}` : "";
      return h(
        "li",
        {},
        `${dateAndTime(at)}: ${reviewer} ${ACTION_WORDS[action]}${figure}${reason ? ` (${reason})` : ""}`,
      );
    });
    const nothing = h("p", { class: "quiet" }, log ? "Nobody has decided anything yet." : "");
    const details = h(
      "details",
      { class: "log", open: log !== null },
      h("summary", {}, "Who decided what"),
      lines.length ? h("ol", { reversed: true }, lines) : nothing,
    );
    details.addEventListener("toggle", () => details.open && log === null && loadLog());
    return details;
  }

  function method() {
    const { model, slide, software } = report;
    const isOwn = !card || card.threshold === model.threshold;
    const commit = software.commit ? `, ${software.commit.slice(0, 12)}` : "";
    const size = `${number(slide.width)} × ${number(slide.height)} px`;
    const { seconds, created_at: createdAt } = report.analysis;
    const facts = [
      ["Model", `${model.id}, at ${model.mpp} µm per pixel`],
      ["Weights (SHA-256)", h("code", {}, model.sha256)],
      ["Threshold", `${model.threshold}${isOwn ? "" : `, asked for; the model's own is ${card.threshold}`}`],
      ["How it was chosen", card?.threshold_note ?? "not known"],
      [
        "Slide",
        `${slide.name}, ${slide.vendor}, ${size}, ${[...new Set(slide.mpp)].join(" × ")} µm per pixel (${slide.mpp_source})`,
      ],
      ["Slide (SHA-256)", h("code", {}, slide.sha256)],
      ["Software", `${software.name} ${software.version}${commit}, ${duration(seconds)}, ${dateAndTime(createdAt)}`],
    ];
    const limits = (card?.limits ?? []).map((each) => h("li", {}, each));
    if (limits.length) facts.push(["Limits", h("ul", {}, limits)]);
    return h(
      "details",
      { class: "method", open: true },
      h("summary", {}, "Method"),
      h(
        "dl",
        { class: "facts" },
        facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
      ),
      h("p", { class: "research" }, RESEARCH_USE),
    );
  }

  load();
  return { element, draw, loadExports };
}
