// A slide: its pixels with what was found on them, and beside it the review and the result.

import { replaceAddress, viewAddress } from "./address.js";
import { get, whenBack } from "./api.js";
import { hideBanner, showBanner } from "./banner.js";
import { createDeepZoom, loadTiling } from "./deep_zoom.js";
import { fill, h } from "./dom.js";
import { UM_PER_PX_AT_X1 } from "./format.js";
import { createLayersPanel } from "./layers_panel.js";
import { createLimits } from "./limits.js";
import { createOverlay, geometryOf, pathOf, regionPath } from "./overlay.js";
import { problemElements } from "./problems.js";
import { RESEARCH_USE } from "./research_use.js";
import { createResultPanel } from "./result_panel.js";
import { Review } from "./review.js";
import { createReviewPanel } from "./review_panel.js";
import { createScaleBar } from "./scale_bar.js";
import { listenToSlideKeys } from "./slide_keys.js";
import { createTabs } from "./tabs.js";
import { createToolbar } from "./toolbar.js";

const FIGURE_UM = UM_PER_PX_AT_X1 / 40; // um per screen px when a figure is looked at
const RELOAD_MS = 4000;
const MARGIN = 1.15; // round a hot-spot, when the view moves to it

/** `address` as `readAddress` gives it: of an analysis, or of a slide without one; `reopen()` makes the page anew. */
export function createPage(address, reopen) {
  const title = h("h1", { tabindex: "-1" }, "Slide");
  const about = h("p", { class: "about quiet" });
  const copyButton = h(
    "button",
    { type: "button", class: "plain", onclick: copyAddress, title: "An address that shows this view" },
    "Copy link",
  );
  const stage = h("div", { class: "stage" });
  const tools = h("div", {});
  const side = h("aside", { class: "side", "aria-label": "Review and result" });
  const homeLink = h("a", { href: "#", class: "home", "aria-label": "All slides" }, "‹ Slides");
  const element = h(
    "div",
    { class: "slide" },
    h("header", {}, homeLink, h("div", {}, title, about), copyButton),
    h("main", {}, h("div", { class: "view" }, tools, stage), side),
    h("footer", { class: "research" }, RESEARCH_USE),
  );
  const closers = []; // what closing the page has to undo
  let isClosed = false;
  let analysis = null;
  let deepZoom = null;
  let overlay = null;
  let reviewPanel = null;
  let reviewed = null; // the review
  let toolbar = null;

  function currentAddress() {
    const kind = address.analysis ? "analysis" : "slide";
    const selectedId = /^d(\d+)$/.exec(reviewPanel?.selectedKey)?.[1];
    return viewAddress(kind, address[kind], deepZoom?.view(), selectedId);
  }

  async function copyAddress() {
    replaceAddress(currentAddress());
    (await import("./copy_link.js")).copyLink();
  }

  function showProblem(error) {
    fill(side, h("div", { class: "problem", role: "alert" }, problemElements(error)));
  }

  // Opening

  async function open() {
    if (address.analysis) {
      analysis = await get(`v1/analyses/${address.analysis}`);
      setTitle(analysis.slide_name, `${analysis.slide_name}, mitoses`);
      showAccession();
    }
    const slideId = analysis?.slide_id ?? address.slide;
    const slide = await get(`v1/slides/${slideId}`).catch((error) => {
      if (error.status === 404) return null;
      throw error;
    });
    const report = analysis?.status === "succeeded" ? await get(`v1/analyses/${analysis.id}/result`) : null;
    const tiling = slide && (await loadTiling(slideId));
    if (isClosed) return;
    if (!slide) showDeleted(Boolean(report));
    if (slide && !analysis) setTitle(slide.name, slide.name);
    if (slide || report) await showSlide(slide, report, tiling, slideId);
    if (report) await showReview(report, slideId, slide);
    else if (analysis) await showUnfinished();
    else if (slide) await showAgain(side, slide);
    else showProblem({ code: "not-found", message: "this slide does not exist, or does not exist any more" });
  }

  const showAccession = () => fill(about, analysis.accession_number ?? "");

  function setTitle(name, windowTitle) {
    fill(title, name);
    document.title = windowTitle;
  }

  function showDeleted(hasResult) {
    const rest = hasResult ? " Its result and review are still here, its pixels are not." : "";
    showBanner("deleted", `The slide was deleted.${rest}`, { kind: "bad" });
    closers.push(() => hideBanner("deleted"));
  }

  async function showSlide(slide, report, tiling, slideId) {
    const { width, height } = report?.slide ?? slide.slide;
    const asked = analysis?.request.mpp;
    const mpp = report?.slide.mpp ?? (asked ? [asked, asked] : slide.slide.mpp);
    const pixels = h("div", { class: "pixels" });
    fill(stage, pixels);
    deepZoom = createDeepZoom(pixels, { width, height, mpp: mpp?.[0] ?? 1, tiling });
    const scaleBar = createScaleBar(stage, deepZoom, mpp);
    stage.append(scaleBar.element);
    overlay = createOverlay(stage, deepZoom, mpp ?? [1, 1]);
    closers.push(overlay.close, deepZoom.close, listenToSlideKeys(deepZoom));
    reloadFailedTiles(slideId);
    showToolbar(mpp);
    closers.push(() => toolbar.close());
    await deepZoom.opened;
    deepZoom.onRest(() => replaceAddress(currentAddress()));
    if (address.view) deepZoom.goTo(address.view, true);
    scaleBar.draw();
  }

  /** A tile that does not come may mean that the slide was deleted, the service is away, or access has ended. */
  function reloadFailedTiles(slideId) {
    let askedAt = 0;
    deepZoom.onTileFailed(async () => {
      if (Date.now() - askedAt < RELOAD_MS) return;
      askedAt = Date.now();
      try {
        await get(`v1/slides/${slideId}`);
        setTimeout(() => isClosed || deepZoom.reload(), RELOAD_MS);
      } catch (error) {
        if (error.status === 404) showDeleted(true);
      }
    });
    closers.push(whenBack(() => deepZoom.reload()));
  }

  // Without a result

  async function showUnfinished() {
    const { createUnfinishedPanel } = await import("./unfinished_panel.js");
    const panel = createUnfinishedPanel({
      analysis,
      onSucceeded: (now) => {
        analysis = now;
        showFinished().catch(showProblem);
      },
      onDeleted: () => showProblem({ code: "not-found", message: "this analysis was deleted" }),
    });
    closers.push(panel.close);
    fill(side, panel.element);
  }

  async function showFinished() {
    const report = await get(`v1/analyses/${analysis.id}/result`);
    if (!isClosed) await showReview(report, analysis.slide_id);
  }

  /** The form that asks for an analysis of this slide, with what may be drawn for it. */
  async function showAgain(place, slide, report = null) {
    const { createAgainPanel } = await import("./again_panel.js");
    if (isClosed) return;
    const region = report?.region && geometryOf(report.region);
    const panel = createAgainPanel({ stage, deepZoom, overlay, slide, analysis, region });
    closers.push(panel.close);
    fill(place, panel.element);
  }

  // Instruments

  function showToolbar(mpp, slideTools = []) {
    toolbar?.close();
    const onSlide = { stage, deepZoom, overlay, mpp, review: reviewed };
    toolbar = createToolbar({
      deepZoom,
      mpp,
      tools: [
        ["Ruler", "L", async () => (await import("./ruler.js")).createRuler(onSlide)],
        ["Fields", "F", async () => (await import("./field_of_view.js")).createFieldOfView(onSlide)],
        ...slideTools,
      ],
    });
    fill(tools, toolbar.element);
  }

  // With a result

  async function showReview(report, slideId, slide = null) {
    const review = (reviewed = new Review(analysis.id, { mergeUm: report.parameters.merge_um, mpp: report.slide.mpp }));
    closers.push(() => review.close());
    showToolbar(report.slide.mpp, [["Own hot-spot", "H", () => loadHotspotTool(report)]]);
    const showHotspots = (more = []) => {
      const { mai } = review.server ?? report;
      const tooLittle = mai.area_sufficient ? "" : ", too little tissue";
      const own = mai.hotspot ? [{ place: mai.hotspot, label: `MAI ${mai.count}${tooLittle}` }] : [];
      const { grown } = mai;
      if (grown) own.push({ place: grown.hotspot, label: `on enough tissue: ${grown.count}`, isLabelBelow: true });
      overlay.set({ hotspots: [...own, ...more] });
    };
    const onAnalysis = (now) => {
      analysis = now;
      showAccession();
      limits.draw();
      resultPanel.draw();
    };
    const loadAnalysis = async () => {
      await get(`v1/analyses/${analysis.id}`).then(onAnalysis, () => {}); // the signature, too, will not be taken
      return Boolean(analysis.order_id ?? analysis.request.order?.patient_id);
    };
    const limits = createLimits({ report, review, analysis: () => analysis, onAnalysis });
    closers.push(limits.close);
    const ofReview = { review, report, slideId, loadAnalysis };
    reviewPanel = createReviewPanel({ ...ofReview, ...reviewOnSlide() });
    closers.push(reviewPanel.close);
    const resultPanel = createResultPanel({
      report,
      analysis: () => analysis,
      review,
      goTo: goToHotspot,
      onShowScore: ({ hotspot, count }, name) =>
        showHotspots([{ place: hotspot, label: `${name}: ${count}`, isLabelBelow: true }]),
    });
    review.addEventListener("change", () => {
      limits.draw();
      resultPanel.draw();
      showHotspots();
      const { selectedKey } = reviewPanel;
      const selected = review.figures.find((figure) => figure.key === selectedKey) ?? null;
      if (selected || !selectedKey?.startsWith("c")) overlay.set({ selected }); // a candidate is not in the review
    });
    review.addEventListener("overtaken", loadAnalysis);
    deepZoom.onClick((x, y) => reviewPanel.clicked(overlay.figureAt(x, y), deepZoom.toSlide(x, y)));
    const contents = [
      ["Review", reviewPanel.element],
      ["Result", resultPanel.element, resultPanel.loadExports],
    ];
    const again = h("div", {});
    slide ??= await get(`v1/slides/${slideId}`).catch(() => null);
    if (slide) contents.push(["Again", again, () => showAgain(again, slide, report).catch(showProblem)]);
    fill(side, limits.element, createTabs(contents));
    limits.draw();
    overlay.set({ region: report.region && regionPath(report.region) });
    resultPanel.draw();
    try {
      await review.load();
      reviewPanel.draw();
      if (address.selected) reviewPanel.selectKey(`d${address.selected}`);
    } catch (error) {
      fill(reviewPanel.element, h("div", { class: "problem" }, problemElements(error)));
    }
    await showLayers();
  }

  async function loadHotspotTool(report) {
    const { createHotspotTool } = await import("./hotspot_tool.js");
    return createHotspotTool({
      stage,
      deepZoom,
      overlay,
      mpp: report.slide.mpp,
      goTo: goToHotspot,
      automatic: () => (reviewed.server ?? report).mai,
      changes: reviewed,
    });
  }

  /** What the review's panel does on the slide, and asks of it. */
  function reviewOnSlide() {
    return {
      centre: () => {
        const { x, y } = deepZoom.view();
        return { x: x - 0.5, y: y - 0.5 };
      },
      onFigures: (figures) => overlay.set({ figures }),
      onAdding: (on) => {
        overlay.set({ cross: on });
        stage.classList.toggle("adding", on);
      },
      onSelect: (figure, moves) => {
        overlay.set({ selected: figure });
        if (figure && moves) {
          deepZoom.goTo({ x: figure.x + 0.5, y: figure.y + 0.5, um: Math.min(deepZoom.view().um, FIGURE_UM) });
        }
        replaceAddress(currentAddress());
      },
    };
  }

  function goToHotspot(place) {
    const sizeUm = place.shape === "circle" ? 2 * place.radius_um : Math.max(place.width_um, place.height_um);
    const { width, height } = deepZoom.size();
    deepZoom.goTo({ x: place.x + 0.5, y: place.y + 0.5, um: (MARGIN * sizeUm) / Math.min(width, height) });
  }

  async function showLayers() {
    const path = `v1/analyses/${analysis.id}`;
    const layers = await get(`${path}/layers`).catch(() => ({}));
    const { tissue = null, unexamined = null, heatmap: probability = null, density = null } = layers;
    if (isClosed) return;
    if (tissue) overlay.set({ tissue: pathOf(tissue.coordinates) });
    const outlines = Object.entries(unexamined ?? {}).map(([reason, { coordinates }]) => [reason, pathOf(coordinates)]);
    overlay.set({ unexamined: Object.fromEntries(outlines) });
    const kept = { tissue, unexamined, heatmap: probability ?? density };
    const heat = Object.fromEntries(Object.entries({ density, probability }).filter(([, each]) => each));
    const panel = createLayersPanel(overlay, {
      missing: Object.keys(kept).filter((name) => !kept[name]),
      hindrances: Object.keys(unexamined ?? {}),
      legends: Object.fromEntries(Object.entries(heat).map(([kind, { legend }]) => [kind, legend])),
    });
    stage.append(panel.element);
    deepZoom.onRest(panel.draw);
    const images = {};
    for (const [kind, place] of Object.entries(heat)) {
      const image = h("img", { alt: "" });
      image.addEventListener("load", () => {
        images[kind] = { image, place };
        overlay.set({ heat: images });
      });
      image.src = `${path}/${place.href}`;
    }
  }

  open().catch((error) => {
    showProblem(error);
    if (!isClosed) closers.push(whenBack(reopen));
  });
  return {
    element,
    /** Show another view of the same analysis or slide. */
    goTo({ view, selected }) {
      if (view && deepZoom) deepZoom.goTo(view);
      if (selected && reviewPanel) reviewPanel.selectKey(`d${selected}`);
    },
    close() {
      isClosed = true;
      for (const close of closers.toReversed()) close();
    },
  };
}
