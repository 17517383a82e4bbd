// The drop zone, and a card for each file: its upload, what the service sees in it, and what is asked of its analysis.

import { viewAddress } from "./address.js";
import { get } from "./api.js";
import { analyse, asked } from "./asked.js";
import { fill, h, say } from "./dom.js";
import { bytes, number } from "./format.js";
import { advice } from "./problems.js";
import { forget, upload } from "./tus.js";

export function uploads() {
  const cards = h("div", { class: "cards" });
  const input = h("input", {
    type: "file",
    id: "files",
    multiple: true,
    class: "unseen",
    onchange: () => take(input.files),
  });
  const zone = h(
    "div",
    { class: "drop" },
    h("p", { class: "drop-title" }, "Drop slides here"),
    h("p", { class: "quiet" }, "SVS, NDPI, TIFF, BIF, SCN, PNG, JPEG; MRXS and DICOM as a zip of their folder"),
    input,
    h("label", { for: "files", class: "button main" }, "Choose files"),
  );
  const take = (files) => {
    for (const file of files) cards.prepend(card(file));
    input.value = "";
  };
  const over = (event) => {
    event.preventDefault();
    zone.classList.toggle("over", event.type === "dragover");
  };
  for (const type of ["dragover", "dragleave"]) zone.addEventListener(type, over);
  zone.addEventListener("drop", (event) => {
    over(event);
    take(event.dataTransfer.files);
  });
  return h("section", { "aria-labelledby": "send-title" }, h("h2", { id: "send-title" }, "New slides"), zone, cards);
}

function card(file) {
  const stopping = new AbortController();
  const bar = h("progress", { max: file.size || 1, value: 0, "aria-label": `Upload of ${file.name}` });
  const state = h("p", { class: "state" }, "begins");
  const facts = h("p", { class: "facts" });
  const problem = h("div", { class: "problem", role: "alert", hidden: true });
  const fields = asked();
  const start = h("button", { type: "submit", class: "main" }, "Analyse");
  const look = h("a", { class: "button", hidden: true }, "Look at it first");
  const drop = h("button", { type: "button", "aria-label": `Remove ${file.name}`, onclick: () => giveUp() }, "Remove");
  const form = h(
    "form",
    { onsubmit: (event) => (event.preventDefault(), begin()) },
    h("div", { class: "fields" }, fields.elements),
    h("div", { class: "buttons" }, start, look, drop),
  );
  const element = h(
    "article",
    { class: "card", "aria-label": file.name },
    h("h3", {}, file.name),
    bar,
    state,
    facts,
    problem,
    form,
  );
  let slide = null;
  let wanted = false;

  const words = { sending: "uploading", waiting: "waiting to go on", checking: "the service opens the slide" };
  const told = () => bytes(file.size);
  let stage = "sending";
  let sent = 0;
  const draw = () =>
    fill(
      state,
      `${words[stage]}: ${number((100 * sent) / (file.size || 1))} % of ${told()}${wanted ? "; the analysis starts then" : ""}`,
    );

  function giveUp() {
    stopping.abort();
    if (!slide) forget(file);
    element.remove();
  }

  function fail(error) {
    fill(problem, h("strong", {}, advice(error.code)), h("span", { class: "quiet" }, error.message));
    problem.hidden = false;
    start.disabled = false;
  }

  async function begin() {
    problem.hidden = true;
    start.disabled = true;
    if (!slide) {
      wanted = true;
      return draw();
    }
    try {
      await analyse(slide.slide_id, fields);
      say(`${file.name} waits for its analysis`);
      element.remove();
    } catch (error) {
      fail(error);
      if (error.code?.startsWith("mpp")) fields.mpp.focus();
    }
  }

  function seen() {
    const { width, height, mpp, vendor, objective_power: power } = slide.slide;
    const size = mpp ? `${number(mpp[0], 3)} µm per pixel` : "µm per pixel unknown";
    fill(state, `uploaded, ${told()}`);
    fill(facts, `${number(width)} × ${number(height)} px, ${size}${power ? `, ×${power}` : ""}, ${vendor}`);
    fields.needMpp(mpp);
    look.href = viewAddress("slide", slide.slide_id);
    look.hidden = false;
    bar.hidden = true;
  }

  async function run() {
    try {
      const id = await upload(file, {
        signal: stopping.signal,
        onProgress: (value) => ((bar.value = sent = value), draw()),
        onState: (value) => ((stage = value), draw()),
      });
      slide = await get(`v1/slides/${id}`);
    } catch (error) {
      if (error.name === "AbortError") return;
      form.hidden = bar.hidden = true;
      fill(state, "was refused");
      element.append(h("div", { class: "buttons" }, drop));
      return fail(error);
    }
    seen();
    if (wanted && form.reportValidity()) begin();
    else {
      wanted = false;
      start.disabled = false;
    }
  }
  run();
  return element;
}
