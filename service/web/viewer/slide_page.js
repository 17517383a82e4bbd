// A slide: its pixels with what was found on them, and beside it the review and the result.

import { replace, viewAddress } from "./address.js";
import { tell, untell } from "./banner.js";
import { connection, get } from "./api.js";
import { analyse, asked } from "./asked.js";
import { deepZoom } from "./deep_zoom.js";
import { fill, h, isTyping } from "./dom.js";
import { watch } from "./events.js";
import { layersPanel } from "./layers_panel.js";
import { may } from "./login.js";
import { overlay, pathOf } from "./overlay.js";
import { advice } from "./problems.js";
import { standing } from "./queue.js";
import { resultPanel } from "./result_panel.js";
import { Review } from "./review.js";
import { reviewPanel } from "./review_panel.js";
import { scaleBar } from "./scale_bar.js";
import { RESEARCH_USE } from "./research_use.js";

const CLOSE_UM = 0.25; // um per screen px when a figure is looked at: x40
const RELOAD_MS = 4000;

export function slidePage(address) {
  const title = h("h1", { tabindex: "-1" }, "Slide");
  const about = h("p", { class: "about quiet" });
  const copy = h(
    "button",
    { type: "button", class: "plain", onclick: copyAddress, title: "An address that shows this view" },
    "Copy link",
  );
  const stage = h("div", { class: "stage" });
  const side = h("aside", { class: "side", "aria-label": "Review and result" });
  const element = h(
    "div",
    { class: "slide" },
    h(
      "header",
      {},
      h("a", { href: "#", class: "home", "aria-label": "All slides" }, "‹ Slides"),
      h("div", {}, title, about),
      copy,
    ),
    h("main", {}, stage, side),
    h("footer", { class: "research" }, RESEARCH_USE),
  );
  const closing = [];
  let zoomed = null;
  let over = null;
  let panel = null;
  let analysis = null;
  let closed = false;

  const kind = address.analysis ? "analysis" : "slide";
  const here = () => viewAddress(kind, address[kind], zoomed?.view(), /^d(\d+)$/.exec(panel?.selected)?.[1]);

  function copyAddress() {
    replace(here());
    navigator.clipboard?.writeText(location.href).then(
      () => tell("copied", "The address of this view is copied.", { kind: "good", fades: true }),
      () => tell("copied", "Copy the address from the browser's address bar.", { fades: true }),
    );
  }

  function fail(error) {
    fill(
      side,
      h(
        "div",
        { class: "problem", role: "alert" },
        h("strong", {}, advice(error.code)),
        h("span", { class: "quiet" }, error.message),
      ),
    );
  }

  async function begin() {
    let slideId = address.slide;
    if (address.analysis) {
      analysis = await get(`v1/analyses/${address.analysis}`);
      slideId = analysis.slide_id;
      fill(title, analysis.slide_name);
      fill(about, analysis.accession_number ?? "");
      document.title = `${analysis.slide_name}, mitoses`;
    }
    const slide = await get(`v1/slides/${slideId}`).catch((error) => {
      if (error.status === 404) return null;
      throw error;
    });
    const report = analysis?.status === "succeeded" ? await get(`v1/analyses/${analysis.id}/result`) : null;
    if (closed) return;
    if (!slide) gone(report);
    if (!slide && !report)
      return analysis ? standingOf() : fail({ code: "not-found", message: "this slide is not there (any more)" });
    if (slide && !analysis) {
      fill(title, slide.name);
      document.title = slide.name;
    }
    await show(slide, report, slideId);
    if (report) await showReview(report, slideId);
    else standingOf(slide);
  }

  function gone(report) {
    tell(
      "gone",
      report
        ? "The slide was deleted. Its result and review are still here, its pixels are not."
        : "The slide was deleted.",
      { kind: "bad" },
    );
    closing.push(() => untell("gone"));
  }

  async function show(slide, report, slideId) {
    const facts = report?.slide ?? slide.slide;
    const mpp =
      report?.slide.mpp ?? (analysis?.request.mpp ? [analysis.request.mpp, analysis.request.mpp] : slide.slide.mpp);
    const pixels = h("div", { class: "pixels" });
    fill(stage, pixels);
    zoomed = deepZoom(pixels, {
      width: facts.width,
      height: facts.height,
      mpp: mpp?.[0] ?? 1,
      tiles: slide && `v1/slides/${slideId}/tiles_files`,
    });
    const scale = scaleBar(stage, zoomed, mpp);
    stage.append(scale.element);
    over = overlay(stage, zoomed, mpp ?? [1, 1]);
    closing.push(over.close, zoomed.close);
    watchTiles(slideId);
    onKeys();
    await zoomed.opened;
    zoomed.onRest(() => replace(here()));
    if (address.view) zoomed.goTo(address.view, true);
    scale.draw();
  }

  /** A tile that does not come may mean that the slide was deleted, that the service is away, or access has ended. */
  function watchTiles(slideId) {
    let asked = 0;
    zoomed.onTileFailed(async () => {
      if (Date.now() - asked < RELOAD_MS) return;
      asked = Date.now();
      const error = await get(`v1/slides/${slideId}`).then(
        () => null,
        (problem) => problem,
      );
      if (error?.status === 404) gone(true);
      else if (!error) setTimeout(() => closed || zoomed.reload(), RELOAD_MS);
    });
    const reload = () => zoomed.reload();
    for (const event of ["back", "signed-in"]) {
      connection.addEventListener(event, reload);
      closing.push(() => connection.removeEventListener(event, reload));
    }
  }

  function onKeys() {
    const onKey = (event) => {
      if (isTyping(event) || event.target.closest("select")) return;
      if (event.key.startsWith("Arrow") && event.target.closest("[role=listbox], [role=tablist], [type=range]")) return;
      const step = 0.15;
      const act = {
        ArrowLeft: () => zoomed.move(-step, 0),
        ArrowRight: () => zoomed.move(step, 0),
        ArrowUp: () => zoomed.move(0, -step),
        ArrowDown: () => zoomed.move(0, step),
        "+": () => zoomed.zoomBy(1.5),
        "=": () => zoomed.zoomBy(1.5),
        "-": () => zoomed.zoomBy(1 / 1.5),
        0: () => zoomed.home(),
      }[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    };
    document.addEventListener("keydown", onKey);
    closing.push(() => document.removeEventListener("keydown", onKey));
  }

  /** An analysis without a result, yet or for ever; or a slide that nobody has asked about. */
  function standingOf(slide = null) {
    const state = h("div", { class: "standing" });
    fill(side, state);
    if (!analysis) {
      return fill(state, askForm(slide));
    }
    const draw = (now) =>
      fill(
        state,
        h("h2", {}, "Analysis"),
        standing(now),
        now.status === "queued"
          ? h("p", { class: "quiet" }, "It begins as soon as a worker is free. The slide can be looked at meanwhile.")
          : null,
      );
    draw(analysis);
    if (!["queued", "running"].includes(analysis.status)) return;
    const stop = watch({
      onStatus: (now) => {
        if (now.id !== analysis.id || closed) return;
        analysis = now;
        draw(now);
        if (now.status !== "succeeded") return;
        stop();
        get(`v1/analyses/${now.id}/result`).then((report) => !closed && showReview(report, now.slide_id), fail);
      },
      onDeleted: (id) => id === analysis.id && fail({ code: "not-found", message: "this analysis was deleted" }),
    });
    closing.push(stop);
  }

  /** To have a slide analysed that is looked at; the region may be what is seen. */
  function askForm(slide) {
    const { width, height, mpp } = slide.slide;
    const seen = (region) =>
      h("button", { type: "button", onclick: () => (region.value = box().join(", ")) }, "Take what is seen");
    const box = () => {
      const { width: across, height: down } = zoomed.size();
      const [from, to] = [zoomed.toSlide(0, 0), zoomed.toSlide(across, down)];
      const [left, above] = [Math.max(0, Math.round(from.x)), Math.max(0, Math.round(from.y))];
      return [left, above, Math.min(width, Math.round(to.x)) - left, Math.min(height, Math.round(to.y)) - above];
    };
    const fields = asked(may("submit") ? seen : null);
    fields.needMpp(mpp);
    const problem = h("div", { class: "problem", role: "alert", hidden: true });
    const submit = async (event) => {
      event.preventDefault();
      try {
        location.hash = viewAddress("analysis", (await analyse(slide.slide_id, fields)).id);
      } catch (error) {
        fill(problem, h("strong", {}, advice(error.code)), h("span", { class: "quiet" }, error.message));
        problem.hidden = false;
      }
    };
    return h(
      "form",
      { class: "ask", onsubmit: submit },
      h("h2", {}, "Not analysed yet"),
      fields.elements,
      problem,
      h(
        "div",
        { class: "buttons" },
        h("button", { type: "submit", class: "main", disabled: !may("submit") }, "Analyse"),
      ),
    );
  }

  async function showReview(report, slideId) {
    const review = new Review(analysis.id);
    closing.push(() => review.close());
    const spots = (extra = []) => {
      const { mai } = review.server ?? report;
      const own = mai.hotspot ? [{ place: mai.hotspot, label: `MAI ${mai.count}` }] : [];
      over.set({ hotspots: [...own, ...extra] });
    };
    panel = reviewPanel({
      review,
      report,
      slideId,
      centre: () => {
        const { x, y } = zoomed.view();
        return { x: x - 0.5, y: y - 0.5 };
      },
      onItems: (items) => over.set({ items }),
      onAdding: (on) => {
        over.set({ cross: on });
        stage.classList.toggle("adding", on);
      },
      onSelect: (item, go) => {
        over.set({ selected: item });
        if (item && go) zoomed.goTo({ x: item.x + 0.5, y: item.y + 0.5, um: Math.min(zoomed.view().um, CLOSE_UM) });
        replace(here());
      },
    });
    const goTo = (place) => {
      const size = place.shape === "circle" ? 2 * place.radius_um : Math.max(place.width_um, place.height_um);
      const { width, height } = zoomed.size();
      zoomed.goTo({ x: place.x + 0.5, y: place.y + 0.5, um: (1.15 * size) / Math.min(width, height) });
    };
    const result = resultPanel({
      report,
      analysis,
      review,
      goTo,
      onSpots: (score) => spots([{ place: score.hotspot, label: `${score.definition} ${score.count}` }]),
    });
    closing.push(panel.close);
    review.addEventListener("change", () => {
      result.draw();
      spots();
      const chosen = panel.selected && review.items.find((item) => item.key === panel.selected);
      if (panel.selected?.startsWith("d") || chosen) over.set({ selected: chosen ?? null });
    });
    zoomed.onClick((x, y) => panel.clicked(over.itemAt(x, y), zoomed.toSlide(x, y)));
    fill(
      side,
      tabs([
        ["Review", panel.element],
        ["Result", result.element],
      ]),
    );
    over.set({ region: report.region });
    result.draw();
    try {
      await review.load();
      panel.draw();
      if (address.selected) panel.selectKey(`d${address.selected}`);
    } catch (error) {
      fill(
        panel.element,
        h("p", { class: "problem" }, advice(error.code), h("span", { class: "quiet" }, error.message)),
      );
    }
    await layers();
  }

  async function layers() {
    const path = `v1/analyses/${analysis.id}`;
    const { tissue, heatmap } = await get(`${path}/layers`).catch(() => ({ tissue: null, heatmap: null }));
    if (closed) return;
    if (tissue) over.set({ tissue: pathOf(tissue.coordinates) });
    const missing = [...(tissue ? [] : ["tissue"]), ...(heatmap ? [] : ["heatmap"])];
    stage.append(layersPanel(over, missing));
    if (!heatmap) return;
    const image = h("img", { alt: "" });
    image.addEventListener("load", () => over.set({ heat: { image, place: heatmap } }));
    image.src = `${path}/${heatmap.href}`;
  }

  begin().catch(fail);
  return {
    element,
    goTo: (now) => {
      if (now.view && zoomed) zoomed.goTo(now.view);
      if (now.selected && panel) panel.selectKey(`d${now.selected}`);
    },
    close() {
      closed = true;
      for (const close of closing.reverse()) close();
    },
  };
}

function tabs(given) {
  const list = h("div", { role: "tablist", class: "tabs", "aria-label": "Beside the slide" });
  const panels = given.map(([name, content], place) => {
    const tab = h(
      "button",
      {
        type: "button",
        role: "tab",
        id: `tab-${place}`,
        "aria-controls": `panel-${place}`,
        onclick: () => show(place),
      },
      name,
    );
    list.append(tab);
    return {
      tab,
      panel: h(
        "div",
        { role: "tabpanel", id: `panel-${place}`, "aria-labelledby": `tab-${place}`, tabindex: "0" },
        content,
      ),
    };
  });
  function show(chosen) {
    panels.forEach(({ tab, panel }, place) => {
      tab.setAttribute("aria-selected", String(place === chosen));
      tab.tabIndex = place === chosen ? 0 : -1;
      panel.hidden = place !== chosen;
    });
  }
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const place = (panels.findIndex(({ panel }) => !panel.hidden) + step + panels.length) % panels.length;
    show(place);
    panels[place].tab.focus();
  });
  show(0);
  return [list, panels.map(({ panel }) => panel)];
}
