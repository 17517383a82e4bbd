// The bar over the slide: magnifications as on a microscope, turning, and tools that are loaded when they are used.

import { fill, h, isTyping } from "./dom.js";
import { UM_PER_PX_AT_X1 } from "./format.js";

const OBJECTIVES = [5, 10, 20, 40];
const TURN = 15; // degrees

/**
 * `tools`: [label, key, load] each; `load()` resolves with a tool: its `element` (what it says, and its buttons),
 * `start()`, `stop()`, and `enter()` where it does something at the middle of the view. One is used at a time.
 */
export function createToolbar({ deepZoom, mpp, tools }) {
  const panel = h("div", { class: "tool-panel", hidden: true });
  const used = new Map(); // tools by label, once they are loaded
  let active = null;

  const powers = OBJECTIVES.map((power, index) => {
    const onclick = () => mpp && deepZoom.goTo({ ...deepZoom.view(), um: UM_PER_PX_AT_X1 / power });
    return keyButton(`×${power}`, String(index + 1), onclick, { disabled: !mpp });
  });
  const upright = h("button", { type: "button", title: "Upright again", onclick: () => turn(-deepZoom.turn()) }, "0°");
  const turns = [
    keyButton("⟲", "[", () => turn(-TURN), { "aria-label": "Turn to the left" }),
    upright,
    keyButton("⟳", "]", () => turn(TURN), { "aria-label": "Turn to the right" }),
  ];
  const toolButtons = tools.map(([label, key, load]) => {
    const button = keyButton(label, key, () => use(label, load, button), { "aria-pressed": "false", disabled: !mpp });
    return button;
  });

  function turn(degrees) {
    deepZoom.turnBy(degrees);
    fill(upright, `${deepZoom.turn()}°`);
  }

  /** Begin a tool, or end it where it is the one in use. */
  async function use(label, load, button) {
    const isSame = active?.label === label;
    stop();
    if (isSame) return;
    if (!used.has(label)) used.set(label, await load());
    stop(); // another one may have been begun while this one was loaded
    active = { label, button, tool: used.get(label) };
    button.setAttribute("aria-pressed", "true");
    fill(panel, active.tool.element);
    panel.hidden = false;
    active.tool.start();
    deepZoom.focus();
  }

  function stop() {
    if (!active) return;
    active.tool.stop();
    active.button.setAttribute("aria-pressed", "false");
    panel.hidden = true;
    active = null;
  }

  const buttons = [...powers, ...turns, ...toolButtons];
  function onKey(event) {
    if (isTyping(event) || event.repeat) return;
    if (event.key === "Escape") stop();
    else if (event.key === "Enter" && active?.tool.enter && !event.target.closest("button, a, summary, [role=tab]")) {
      active.tool.enter();
    } else buttons.find((button) => button.getAttribute("aria-keyshortcuts") === event.key.toUpperCase())?.click();
  }
  document.addEventListener("keydown", onKey);

  const group = (label, content) => h("div", { role: "group", "aria-label": label }, content);
  return {
    element: h(
      "div",
      { class: "tools", role: "toolbar", "aria-label": "Instruments" },
      group("Magnification", powers),
      group("Turn", turns),
      tools.length ? group("Tools", toolButtons) : null,
      panel,
    ),
    stop,
    close() {
      stop();
      document.removeEventListener("keydown", onKey);
    },
  };
}

function keyButton(text, key, onclick, properties = {}) {
  const name = properties["aria-label"] ?? text;
  const all = { type: "button", onclick, title: `${name} (${key})`, "aria-keyshortcuts": key, ...properties };
  return h("button", all, text);
}
