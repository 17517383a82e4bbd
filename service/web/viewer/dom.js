// Elements without a framework. Nothing here parses HTML: a slide's name is text, whatever is in it.
//
// A part of the page is made by a function `createPART`, which returns its `element` and what can be done with it.

/** An element with properties (on* are listeners; class, dataset and attributes as in HTML) and children. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  return fill(element, ...children);
}

/** Replace an element's children; null, undefined and false are left out. */
export function fill(element, ...children) {
  const kept = children.flat(Infinity).filter((child) => child !== false && (child ?? null) !== null);
  element.replaceChildren(...kept);
  return element;
}

/** Tell people who listen to the page instead of looking at it. */
export function announce(text) {
  document.getElementById("announcement").textContent = text;
}

/** A colour of the style sheets, by the name of its custom property without the dashes. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Whether a key press belongs to an input or a dialog, and is no command of the page. */
export function isTyping(event) {
  const target = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey) return true;
  if (target.closest?.("dialog[open]")) return true;
  const tag = target.tagName;
  const takesText = tag === "INPUT" && !["range", "checkbox", "radio"].includes(target.type);
  return tag === "TEXTAREA" || tag === "SELECT" || takesText;
}

let lastId = 0;
export function newId(prefix) {
  lastId += 1;
  return `${prefix}-${lastId}`;
}
