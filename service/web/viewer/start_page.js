// The start page: send slides, and follow their analyses.

import { createAnalysisList } from "./analysis_list.js";
import { h } from "./dom.js";
import { may, session, signOut } from "./login.js";
import { RESEARCH_USE } from "./research_use.js";
import { createUploadPanel } from "./upload_panel.js";

export function createStartPage() {
  const list = createAnalysisList();
  const signOutButton = h("button", { type: "button", class: "plain", onclick: signOut }, "Sign out");
  const element = h(
    "div",
    { class: "start" },
    h(
      "header",
      {},
      h("h1", { tabindex: "-1" }, "Mitosis service"),
      h("p", { class: "research" }, RESEARCH_USE),
      h("nav", { "aria-label": "Service" }, h("a", { href: "docs" }, "HTTP API"), session.keys ? signOutButton : null),
    ),
    h("main", {}, may("submit") ? createUploadPanel() : null, list.element),
  );
  const open = () => {
    document.title = "Mitosis service";
    list.open();
  };
  return { element, open, close: list.close };
}
