// The place to drop files, and a card for each file: its upload, what the service sees in it, and its new analysis.

import { viewAddress } from "./address.js";
import { createAnalysisForm, submitAnalysis } from "./analysis_form.js";
import { get } from "./api.js";
import { announce, fill, h } from "./dom.js";
import { bytes, number } from "./format.js";
import { advice, SLIDE_FORMATS } from "./problems.js";
import { abandonUpload, upload } from "./tus.js";

const STATE_WORDS = { sending: "uploading", waiting: "waiting to continue", checking: "the service opens the slide" };

export function createUploadPanel() {
  const cards = h("div", { class: "cards" });
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

  function addFiles(files) {
    for (const file of files) cards.prepend(createCard(file));
    input.value = "";
  }

  function onDrag(event) {
    event.preventDefault();
    dropZone.classList.toggle("over", event.type === "dragover");
  }

  for (const type of ["dragover", "dragleave", "drop"]) dropZone.addEventListener(type, onDrag);
  dropZone.addEventListener("drop", (event) => addFiles(event.dataTransfer.files));
  return h(
    "section",
    { "aria-labelledby": "send-title" },
    h("h2", { id: "send-title" }, "New slides"),
    dropZone,
    cards,
  );
}

function createCard(file) {
  const aborting = new AbortController();
  const progress = h("progress", { max: file.size || 1, value: 0, "aria-label": `Upload of ${file.name}` });
  const stateLine = h("p", { class: "state" }, "starting");
  const facts = h("p", { class: "facts" });
  const problem = h("div", { class: "problem", role: "alert", hidden: true });
  const form = createAnalysisForm();
  const analyseButton = h("button", { type: "submit", class: "main" }, "Analyse");
  const viewLink = h("a", { class: "button", hidden: true }, "View it first");
  const removeButton = h("button", { type: "button", "aria-label": `Remove ${file.name}`, onclick: remove }, "Remove");
  const onsubmit = (event) => {
    event.preventDefault();
    analyse();
  };
  const formElement = h(
    "form",
    { onsubmit },
    h("div", { class: "fields" }, form.elements),
    h("div", { class: "buttons" }, analyseButton, viewLink, removeButton),
  );
  const parts = [h("h3", {}, file.name), progress, stateLine, facts, problem, formElement];
  const element = h("article", { class: "card", "aria-label": file.name }, parts);
  let slide = null; // as the service describes it, once it is uploaded
  let analyseAfterUpload = false;
  let state = "sending";
  let sentBytes = 0;

  function draw() {
    const percent = number((100 * sentBytes) / (file.size || 1));
    const then = analyseAfterUpload ? "; the analysis starts afterwards" : "";
    fill(stateLine, `${STATE_WORDS[state]}: ${percent} % of ${bytes(file.size)}${then}`);
    progress.value = sentBytes;
  }

  function remove() {
    aborting.abort();
    if (!slide) abandonUpload(file);
    element.remove();
  }

  function showProblem(error) {
    fill(problem, h("strong", {}, advice(error.code)), h("span", { class: "quiet" }, error.message));
    problem.hidden = false;
    analyseButton.disabled = false;
  }

  async function analyse() {
    problem.hidden = true;
    analyseButton.disabled = true;
    if (!slide) {
      analyseAfterUpload = true;
      draw();
      return;
    }
    try {
      await submitAnalysis(slide.slide_id, form);
      announce(`${file.name} waits for its analysis`);
      element.remove();
    } catch (error) {
      showProblem(error);
      if (error.code?.startsWith("mpp")) form.focusMpp();
    }
  }

  function showSlide() {
    const { width, height, mpp, vendor, objective_power: power } = slide.slide;
    const resolution = mpp ? `${number(mpp[0], 3)} µm per pixel` : "µm per pixel unknown";
    const objective = power ? [`×${power}`] : [];
    fill(stateLine, `uploaded, ${bytes(file.size)}`);
    fill(facts, [`${number(width)} × ${number(height)} px`, resolution, ...objective, vendor].join(", "));
    form.setSlideMpp(mpp);
    viewLink.href = viewAddress("slide", slide.slide_id);
    viewLink.hidden = false;
    progress.hidden = true;
  }

  function showRefusal(error) {
    formElement.hidden = true;
    progress.hidden = true;
    fill(stateLine, "refused");
    element.append(h("div", { class: "buttons" }, removeButton));
    showProblem(error);
  }

  async function run() {
    const onProgress = (value) => {
      sentBytes = value;
      draw();
    };
    const onState = (value) => {
      state = value;
      draw();
    };
    try {
      const slideId = await upload(file, { signal: aborting.signal, onProgress, onState });
      slide = await get(`v1/slides/${slideId}`);
    } catch (error) {
      if (error.name !== "AbortError") showRefusal(error);
      return;
    }
    showSlide();
    if (analyseAfterUpload && formElement.reportValidity()) analyse();
    else {
      analyseAfterUpload = false;
      analyseButton.disabled = false;
    }
  }

  run();
  return element;
}
