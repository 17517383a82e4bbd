// Slides that wait for their analysis: those that are uploaded here, and those that were uploaded before. One form asks
// for what they share; each has a line of its own.

import { submitAnalysis } from "./submission.js";
import { get } from "./api.js";
import { fill, h, newId } from "./dom.js";
import { plural } from "./format.js";
import { createNewSlide } from "./new_slide.js";
import { problemElements, SLIDE_FORMATS } from "./problems.js";

const FROM_NAME_KEY = "mitosis-accession-from-name"; // of the browser's storage

/** `onSubmitted()` is called when an analysis was asked for. */
export function createNewSlides({ onSubmitted }) {
  const lines = []; // of slides, newest first
  const list = h("ul", { class: "new-slides" });
  const input = h("input", {
    type: "file",
    id: "files",
    multiple: true,
    class: "unseen",
    onchange: () => addFiles(input.files),
  });
  const dropZone = h(
    "div",
    { class: "drop" },
    h("p", { class: "drop-title" }, "Drop slides here"),
    h("p", { class: "quiet" }, SLIDE_FORMATS),
    input,
    h("label", { for: "files", class: "button main" }, "Choose files"),
  );
  const mpp = h("input", { type: "number", step: "any", min: "0", autocomplete: "off", placeholder: "0.25" });
  const fromName = h("input", {
    type: "checkbox",
    checked: localStorage.getItem(FROM_NAME_KEY) === "yes",
    onchange: () => {
      localStorage.setItem(FROM_NAME_KEY, fromName.checked ? "yes" : "no");
      for (const line of lines) line.nameAccession(fromName.checked);
    },
  });
  const urgent = h("input", { type: "checkbox" });
  const analyseButton = h("button", { type: "submit", class: "main" });
  const said = h("p", { class: "quiet", role: "status" });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const moreButton = h("button", { type: "button", hidden: true, onclick: () => loadWaiting() }, "Older slides");
  const form = h(
    "form",
    {
      class: "shared",
      "aria-label": "For all these slides",
      onsubmit: (event) => {
        event.preventDefault();
        analyse(lines.filter((line) => line.isReady()));
      },
    },
    h("div", { class: "fields" }, [
      labelled("µm per pixel, where a slide does not say it", mpp),
      labelled("Accession number from the name", fromName, "check"),
      labelled("Urgent", urgent, "check"),
    ]),
    h("div", { class: "buttons" }, analyseButton),
  );
  const waiting = h("div", { class: "waiting", hidden: true }, form, list, moreButton);
  let cursor = null; // of older slides

  function addFiles(files) {
    for (const file of files) add(createNewSlide({ file, ...ofLine }));
    input.value = "";
  }

  function add(line, isLast = false) {
    line.nameAccession(fromName.checked);
    if (isLast) lines.push(line);
    else lines.unshift(line);
    if (isLast) list.append(line.element);
    else list.prepend(line.element);
    draw();
  }

  const ofLine = {
    onChange: draw,
    onAnalyse: (line) => analyse([line]),
    onRemoved: (line, text) => {
      forget(line);
      fill(said, text);
    },
  };

  function forget(line) {
    line.element.remove();
    lines.splice(lines.indexOf(line), 1);
    draw();
  }

  function draw() {
    const ready = lines.filter((line) => line.isReady());
    waiting.hidden = lines.length === 0;
    mpp.required = ready.some((line) => line.needsMpp());
    analyseButton.disabled = ready.length === 0;
    fill(analyseButton, ready.length > 1 ? `Analyse all ${ready.length}` : "Analyse");
    for (const line of lines.filter((each) => each.wantsAnalysis())) analyse([line]);
  }

  /** Ask for analyses, one after the other: a slide that is refused stays, with the reason. */
  async function analyse(chosen) {
    if (chosen.some((line) => line.needsMpp()) && !mpp.reportValidity()) {
      for (const line of chosen) line.waits(false);
      return;
    }
    let done = 0;
    analyseButton.disabled = true;
    for (const line of chosen) {
      if (!line.isReady()) {
        line.waits(true);
        continue;
      }
      try {
        await submitAnalysis(line.slideId(), valuesOf(line));
        done += 1;
        forget(line);
      } catch (error) {
        line.showProblem(error);
      }
    }
    draw();
    if (!done) return;
    fill(said, `${plural(done, "analysis", "analyses")} queued.`);
    onSubmitted();
  }

  function valuesOf(line) {
    const accession = line.accession();
    return {
      priority: urgent.checked ? "stat" : "routine",
      ...(line.needsMpp() && { mpp: Number(mpp.value) }),
      ...(accession && { order: { accession_number: accession } }),
    };
  }

  /** Show slides that were uploaded before and are not analysed; without a cursor the newest. */
  async function loadWaiting() {
    try {
      const page = await get(`v1/slides?${new URLSearchParams({ analysed: false, ...(cursor && { cursor }) })}`);
      const known = new Set(lines.map((line) => line.slideId()));
      for (const slide of page.slides.filter((each) => !known.has(each.slide_id))) {
        add(createNewSlide({ slide, ...ofLine }), true);
      }
      cursor = page.next_cursor;
      moreButton.hidden = !cursor;
    } catch (error) {
      fill(problem, problemElements(error));
      problem.hidden = false;
    }
  }

  function onDrag(event) {
    event.preventDefault();
    dropZone.classList.toggle("over", event.type === "dragover");
  }

  for (const type of ["dragover", "dragleave", "drop"]) dropZone.addEventListener(type, onDrag);
  dropZone.addEventListener("drop", (event) => addFiles(event.dataTransfer.files));
  draw();
  const element = h(
    "section",
    { "aria-labelledby": "send-title" },
    h("h2", { id: "send-title" }, "New slides"),
    dropZone,
    said,
    problem,
    waiting,
  );
  return {
    element,
    load() {
      cursor = null;
      return loadWaiting();
    },
  };
}

function labelled(text, input, kind = "") {
  input.id = newId("shared");
  const label = h("label", { for: input.id }, text);
  return h("div", { class: `field ${kind}` }, kind ? [input, label] : [label, input]);
}
