// The page: a start page or a slide, as the address says.

import "./banner.js";
import { read } from "./address.js";
import { connection } from "./api.js";
import { fill, h } from "./dom.js";
import { signIn, signInAgain } from "./login.js";
import { startPage } from "./start_page.js";
import { slidePage } from "./slide_page.js";

const app = document.getElementById("app");
let page = null;
let shown = null;
let start = null;

function show() {
  const address = read();
  const key = address.analysis ? `analysis ${address.analysis}` : address.slide ? `slide ${address.slide}` : "start";
  if (key === shown) return page.goTo?.(address);
  page?.close();
  shown = key;
  page = key === "start" ? (start ??= startPage()) : slidePage(address);
  fill(app, page.element);
  page.open?.();
  page.element.querySelector("h1")?.focus({ preventScroll: true });
}

async function begin() {
  try {
    await signIn();
  } catch {
    fill(
      app,
      h("main", { class: "start" }, h("h1", {}, "Mitosis service"), h("p", {}, "The service does not answer yet.")),
    );
    connection.addEventListener("back", begin, { once: true });
    return;
  }
  connection.addEventListener("signed-out", () => signInAgain());
  addEventListener("hashchange", show);
  show();
}

begin();
