// One line over the page for what concerns all of it: the connection, and decisions that are not saved.

import { connection } from "./api.js";
import { fill, h } from "./dom.js";

const FADE_MS = 5000;
const messages = new Map(); // by topic; the last one is seen
let fading = null;

/** Show a message. `actions` are buttons, [label, what to do]; one that `fades` goes away by itself. */
export function showBanner(topic, text, { kind = "note", actions = [], fades = false } = {}) {
  messages.delete(topic);
  messages.set(topic, { text, kind, actions, fades });
  draw();
}

export function hideBanner(topic) {
  if (messages.delete(topic)) draw();
}

function draw() {
  const banner = document.getElementById("banner");
  const [topic, message] = [...messages].at(-1) ?? [];
  clearTimeout(fading);
  banner.hidden = !message;
  if (!message) return;
  banner.className = message.kind;
  const buttons = message.actions.map(([label, act]) => h("button", { type: "button", onclick: act }, label));
  fill(banner, h("span", {}, message.text), buttons);
  if (message.fades) fading = setTimeout(() => hideBanner(topic), FADE_MS);
}

connection.addEventListener("lost", () => {
  const text = "The service does not answer. This page connects again by itself, and then sends what you decided.";
  showBanner("connection", text, { kind: "bad" });
});
connection.addEventListener("back", () => {
  hideBanner("connection");
  showBanner("back", "Connected again.", { kind: "good", fades: true });
});
