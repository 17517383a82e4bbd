// The page: the start page or a slide, as the address says.

import "./banner.js";
import { readAddress } from "./address.js";
import { connection, reportConnectionLost } from "./api.js";
import { fill, h } from "./dom.js";
import { signIn, signInAgain } from "./login.js";

const app = document.getElementById("app");
let page = null;
let shownKey = null;
const DEEP_ZOOM = "viewer/openseadragon/openseadragon.min.js";
const loading = new Map(); // styles and scripts, by name
let startPage = null; // kept: uploads continue while a slide is looked at

/** Load what a page needs and the other one does not. */
async function createPage(key, address) {
  if (key === "start") {
    const [made] = await Promise.all([import("./start_page.js"), ...["start"].map(loadStyle)]);
    return (startPage ??= made.createPage());
  }
  const needed = [loadScript(DEEP_ZOOM), ...["slide", "review", "print"].map(loadStyle)];
  const [made] = await Promise.all([import("./slide_page.js"), ...needed]);
  return made.createPage(address, reopen);
}

function reopen() {
  shownKey = null;
  show();
}

const loadScript = (src) => load(src, () => h("script", { src }));
const loadStyle = (name) => load(name, () => h("link", { rel: "stylesheet", href: `viewer/${name}.css` }));

function load(name, create) {
  if (!loading.has(name)) {
    const element = create();
    loading.set(name, new Promise((resolve, reject) => Object.assign(element, { onload: resolve, onerror: reject })));
    loading.get(name).catch(() => loading.delete(name));
    document.head.append(element);
  }
  return loading.get(name);
}

async function show() {
  const address = readAddress();
  const key = address.analysis ? `analysis ${address.analysis}` : address.slide ? `slide ${address.slide}` : "start";
  if (key === shownKey) {
    page?.goTo?.(address);
    return;
  }
  page?.close();
  page = null;
  shownKey = key;
  const created = await createPage(key, address).catch(reportConnectionLost);
  if (shownKey !== key || created instanceof Error) {
    created.close?.(); // the address has changed again
    if (shownKey === key) showWaiting(reopen);
    return;
  }
  page?.close();
  page = created;
  fill(app, page.element);
  page.open?.();
  page.element.querySelector("h1")?.focus({ preventScroll: true });
}

/** Show that nothing can be shown; `again()` is called when the service answers. */
function showWaiting(again) {
  const words = h("p", {}, "The service does not answer yet.");
  fill(app, h("main", { class: "start" }, h("h1", {}, "Mitosis service"), words));
  connection.addEventListener("back", again, { once: true });
}

async function start() {
  try {
    await signIn();
  } catch {
    showWaiting(start);
    return;
  }
  connection.addEventListener("signed-out", signInAgain);
  addEventListener("hashchange", show);
  show();
}

start();
