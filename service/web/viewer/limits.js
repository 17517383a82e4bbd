// What limits a result, above both tabs and on paper: what is not decided, too little tissue, warnings, a hold.

import { decidedWords, grownWords, undecided, windowWords } from "./counted_words.js";
import { fill, h } from "./dom.js";
import { number, plural } from "./format.js";

/** `analysis()` is what the service last said of it; `onAnalysis(analysis)` is told what it says after a decision. */
export function createLimits({ report, review, analysis, onAnalysis }) {
  const element = h("section", { class: "limits", "aria-label": "What limits this result" });
  const hold = h("div", { hidden: true });
  let holdPanel = null; // loaded for a result that is held
  const lines = h("div");
  const readers = h("div");
  let readersPanel = null; // loaded where two people read
  const others = report.warnings.filter(({ code }) => code !== "area-insufficient"); // a line of its own says that
  const codes = [...new Set(others.map(({ code }) => code))].join(", ");
  const warnings = h(
    "details",
    { hidden: others.length === 0 },
    h("summary", {}, `${plural(others.length, "warning")}: ${codes}`),
    others.map(({ code, message }) => h("p", {}, h("strong", {}, `${code}: `), message)),
  );
  const openAll = () => {
    // what is closed is not printed
    for (const each of document.querySelectorAll(".side details:not(.log)")) each.open = true;
  };
  addEventListener("beforeprint", openAll);
  fill(element, readers, lines, hold, warnings);

  function draw() {
    const { server, figures } = review;
    const { mai } = server ?? report;
    const open = undecided(figures);
    const tooLittle = mai.hotspot
      ? `The MAI's window of ${windowWords(mai)} holds too little tissue: no class.`
      : `The MAI is of ${windowWords(mai)}: no class.`;
    fill(
      lines,
      server && open > 0 ? h("p", { class: "undecided" }, h("strong", {}, decidedWords(figures))) : null,
      mai.area_sufficient ? null : h("p", {}, tooLittle, " ", grownWords(mai)),
      mai.hotspot?.sections > 1
        ? h("p", {}, `The MAI's window reaches ${number(mai.hotspot.sections)} pieces of tissue that lie apart.`)
        : null,
    );
    hold.hidden = !analysis().held;
    if (!hold.hidden || holdPanel) drawHold();
    if (server?.second_reading || readersPanel) drawReaders();
    element.hidden = !server?.second_reading && !lines.childElementCount && warnings.hidden && hold.hidden;
  }

  async function drawReaders() {
    const { createReadersPanel } = await import("./readers_panel.js");
    readersPanel ??= createReadersPanel(review);
    if (!readers.firstChild) fill(readers, readersPanel.element);
    readersPanel.draw();
  }

  async function drawHold() {
    const { createHoldPanel } = await import("./hold_panel.js");
    holdPanel ??= createHoldPanel(onAnalysis);
    fill(hold, holdPanel.element);
    holdPanel.draw(analysis());
  }

  return { element, draw, close: () => removeEventListener("beforeprint", openAll) };
}
