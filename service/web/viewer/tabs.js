// Panels of which one is shown, chosen by tabs.

import { h } from "./dom.js";

/** `contents`: [name, element, what to do when it is first shown] of each panel. */
export function createTabs(contents) {
  const panels = contents.map(([name, content, onFirst], index) => {
    const [tabId, panelId] = [`tab-${index}`, `panel-${index}`];
    const onclick = () => show(index);
    const tab = h("button", { type: "button", role: "tab", id: tabId, "aria-controls": panelId, onclick }, name);
    const properties = { role: "tabpanel", id: panelId, "aria-labelledby": tabId, tabindex: "0" };
    return { tab, panel: h("div", properties, content), onFirst };
  });
  const list = h(
    "div",
    { role: "tablist", class: "tabs", "aria-label": "Beside the slide" },
    panels.map(({ tab }) => tab),
  );

  function show(chosen) {
    panels.forEach(({ tab, panel }, index) => {
      tab.setAttribute("aria-selected", String(index === chosen));
      tab.tabIndex = index === chosen ? 0 : -1;
      panel.hidden = index !== chosen;
    });
    panels[chosen].onFirst?.();
    panels[chosen].onFirst = null;
  }

  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const shown = panels.findIndex(({ panel }) => !panel.hidden);
    const next = (shown + step + panels.length) % panels.length;
    show(next);
    panels[next].tab.focus();
  });
  show(0);
  return [list, panels.map(({ panel }) => panel)];
}
