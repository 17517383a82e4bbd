// The start page: send slides, and see how they stand.

import { h } from "./dom.js";
import { may, session, signOut } from "./login.js";
import { queue } from "./queue.js";
import { RESEARCH_USE } from "./research_use.js";
import { uploads } from "./uploads.js";

/** One for as long as the page is open: uploads go on while a slide is looked at. */
export function startPage() {
  const list = queue();
  const element = h(
    "div",
    { class: "start" },
    h(
      "header",
      {},
      h("h1", { tabindex: "-1" }, "Mitosis service"),
      h("p", { class: "research" }, RESEARCH_USE),
      h(
        "nav",
        { "aria-label": "Service" },
        h("a", { href: "docs" }, "HTTP API"),
        session.keys ? h("button", { type: "button", class: "plain", onclick: signOut }, "Sign out") : null,
      ),
    ),
    h("main", {}, may("submit") ? uploads() : null, list.element),
  );
  const open = () => {
    document.title = "Mitosis service";
    list.open();
  };
  return { element, open, close: list.close };
}
