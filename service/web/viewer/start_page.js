// The start page: send slides, and find the analyses of those that were sent.

import { call } from "./api.js";
import { h } from "./dom.js";
import { may, session } from "./login.js";
import { createNewSlides } from "./new_slides.js";
import { RESEARCH_USE } from "./research_use.js";
import { createWorkList } from "./work_list.js";

export function createPage() {
  const newSlides = may("submit") ? createNewSlides({ onSubmitted: () => list.load() }) : null;
  const list = createWorkList({ onDeleted: () => newSlides?.load() });
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
    h("main", {}, newSlides?.element ?? null, list.element),
  );
  const open = () => {
    document.title = "Mitosis service";
    list.open();
    newSlides?.load();
  };
  return { element, open, close: list.close };
}

async function signOut() {
  await call("v1/session", { method: "DELETE" }).catch(() => {});
  if (session.sign_out_url) {
    location.assign(session.sign_out_url);
    return;
  }
  location.hash = "";
  location.reload();
}
