// One line over the page for what concerns all of it: the connection, and unsent or overtaken decisions.

import { connection } from "./api.js";
import { fill, h } from "./dom.js";

const shown = new Map(); // by what it is about: the last one is seen
let fading = null;

export function tell(about, text, { kind = "note", actions = [], fades = false } = {}) {
  shown.delete(about);
  shown.set(about, { text, kind, actions, fades });
  draw();
}

export function untell(about) {
  if (shown.delete(about)) draw();
}

function draw() {
  const banner = document.getElementById("banner");
  const [about, last] = [...shown].at(-1) ?? [];
  clearTimeout(fading);
  banner.hidden = !last;
  if (!last) return;
  banner.className = last.kind;
  const buttons = last.actions.map(([label, act]) => h("button", { type: "button", onclick: act }, label));
  fill(banner, h("span", {}, last.text), buttons);
  if (last.fades) fading = setTimeout(() => untell(about), 5000);
}

connection.addEventListener("lost", () => {
  tell("connection", "The service does not answer. This page connects again by itself; nothing you entered is lost.", {
    kind: "bad",
  });
});
connection.addEventListener("back", () => {
  untell("connection");
  tell("back", "Connected again.", { kind: "good", fades: true });
});
