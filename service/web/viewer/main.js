// The page: the start page or a slide, as the address says.

import "./banner.js";
import { readAddress } from "./address.js";
import { connection } from "./api.js";
import { fill, h } from "./dom.js";
import { signIn, signInAgain } from "./login.js";
import { createSlidePage } from "./slide_page.js";
import { createStartPage } from "./start_page.js";

const app = document.getElementById("app");
let page = null;
let shownKey = null;
let startPage = null; // kept: uploads continue while a slide is looked at

function show() {
  const address = readAddress();
  const key = address.analysis ? `analysis ${address.analysis}` : address.slide ? `slide ${address.slide}` : "start";
  if (key === shownKey) {
    page.goTo?.(address);
    return;
  }
  page?.close();
  shownKey = key;
  page = key === "start" ? (startPage ??= createStartPage()) : createSlidePage(address);
  fill(app, page.element);
  page.open?.();
  page.element.querySelector("h1")?.focus({ preventScroll: true });
}

async function start() {
  try {
    await signIn();
  } catch {
    const words = h("p", {}, "The service does not answer yet.");
    fill(app, h("main", { class: "start" }, h("h1", {}, "Mitosis service"), words));
    connection.addEventListener("back", start, { once: true });
    return;
  }
  connection.addEventListener("signed-out", signInAgain);
  addEventListener("hashchange", show);
  show();
}

start();
