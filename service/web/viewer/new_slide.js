// A slide that waits for its analysis: its upload, what the service sees in it, and its accession number.

import { viewAddress } from "./address.js";
import { call, get } from "./api.js";
import { TEXT_LENGTH } from "./contract.js";
import { fill, h } from "./dom.js";
import { number } from "./format.js";
import { problemElements } from "./problems.js";
import { abandonUpload, upload } from "./tus.js";
import { thumbnailOf } from "./work_list_row.js";

const STATE_WORDS = { sending: "uploading", waiting: "waiting to continue", checking: "the service opens the slide" };

/** The accession number that a slide's name begins with: what stands before a space, underscore or comma. */
const accessionOf = (name) => name.replace(/\.[^.]*$/, "").split(/[\s_,;]/)[0];

/** Of a `file` that is to be uploaded, or of a `slide` as the service describes it. */
export function createNewSlide({ file, slide: known = null, onChange, onAnalyse, onRemoved }) {
  const name = known?.name ?? file.name;
  const aborting = new AbortController();
  const picture = h("img", { class: "thumbnail", alt: "", hidden: true, width: 64, height: 48 });
  picture.addEventListener("error", () => picture.classList.add("missing"));
  const progress = h("progress", { max: file?.size || 1, value: 0, "aria-label": `Upload of ${name}` });
  const stateLine = h("span", { class: "state quiet" });
  const problem = h("div", { class: "problem", role: "alert", hidden: true });
  const accession = h("input", {
    maxlength: String(TEXT_LENGTH),
    placeholder: "accession number",
    autocomplete: "off",
    "aria-label": `Accession number of ${name}`,
    oninput: () => {
      isTyped = accession.value !== "";
    },
  });
  const analyseButton = h(
    "button",
    { type: "button", "aria-label": `Analyse ${name}`, onclick: () => onAnalyse(line) },
    "Analyse",
  );
  const viewLink = h("a", { class: "button", hidden: true, "aria-label": `View ${name} first` }, "View it first");
  const removeButton = h("button", { type: "button", "aria-label": `Remove ${name}`, onclick: remove }, "Remove");
  const element = h(
    "li",
    { class: "new-slide", "aria-label": name },
    picture,
    h("div", { class: "what" }, h("strong", {}, name), stateLine, progress, problem),
    accession,
    h("div", { class: "buttons" }, analyseButton, viewLink, removeButton),
  );
  let slide = null; // as the service describes it, once it is there
  let isTyped = false;
  let isWanted = false; // to be analysed as soon as it is uploaded
  let state = "sending";
  let sentBytes = 0;

  function draw() {
    if (slide) return;
    const percent = number((100 * sentBytes) / (file.size || 1));
    const then = isWanted ? "; the analysis starts afterwards" : "";
    fill(stateLine, `${STATE_WORDS[state]}: ${percent} % of ${bytes(file.size)}${then}`);
    progress.value = sentBytes;
  }

  async function remove() {
    if (!slide) {
      aborting.abort();
      if (file) abandonUpload(file);
      onRemoved(line, `The upload of ${name} is given up.`);
      return;
    }
    if (!confirm(`Delete the uploaded slide ${name} from the service?`)) return;
    try {
      await call(`v1/slides/${slide.slide_id}`, { method: "DELETE" });
      onRemoved(line, `${name} is deleted.`);
    } catch (error) {
      line.showProblem(error);
    }
  }

  function showSlide(found) {
    slide = found;
    const { width, height, mpp, vendor, objective_power: power } = slide.slide;
    const resolution = mpp ? `${number(mpp[0], 3)} µm per pixel` : "µm per pixel unknown";
    const facts = [`${number(width)} × ${number(height)} px`, resolution, power && `×${power}`, vendor];
    fill(stateLine, [`uploaded, ${bytes(slide.size)}`, ...facts.filter(Boolean)].join(", "));
    picture.src = thumbnailOf(slide.slide_id);
    picture.hidden = false;
    viewLink.href = viewAddress("slide", slide.slide_id);
    viewLink.hidden = false;
    progress.hidden = true;
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
      showSlide(await get(`v1/slides/${slideId}`));
    } catch (error) {
      if (error.name === "AbortError") return;
      for (const each of [progress, accession, analyseButton]) each.hidden = true;
      fill(stateLine, "refused");
      line.showProblem(error);
    }
    onChange();
  }

  const line = {
    element,
    isReady: () => slide !== null,
    /** Whether it is uploaded now and an analysis was asked for before. */
    wantsAnalysis: () => slide !== null && isWanted,
    needsMpp: () => slide !== null && !slide.slide.mpp,
    slideId: () => slide?.slide_id,
    accession: () => accession.value.trim(),
    nameAccession(isWished) {
      if (!isTyped) accession.value = isWished ? accessionOf(name) : "";
    },
    /** Whether its analysis begins when it is uploaded. */
    waits(isWished) {
      isWanted = isWished;
      draw();
    },
    showProblem(error) {
      isWanted = false;
      fill(problem, problemElements(error));
      problem.hidden = false;
    },
  };
  if (known) showSlide(known);
  else {
    draw();
    run();
  }
  return line;
}

function bytes(size) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log(Math.max(size, 1)) / Math.log(1000)));
  return `${(size / 1000 ** power).toFixed(power > 1 ? 1 : 0)} ${units[power]}`;
}
