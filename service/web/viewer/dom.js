// Elements without a framework. Nothing here parses HTML: names of slides are text, whatever is in them.

/** An element with properties (on* are listeners, class, dataset and attributes as in HTML) and children. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

export function fill(element, ...children) {
  element.replaceChildren(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** Tell those who listen to the page instead of looking at it. */
export function say(text) {
  document.getElementById("said").textContent = text;
}

/** Whether a key is typed into something, so that it is no command. */
export function isTyping(event) {
  const target = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey) return true;
  if (target.closest?.("dialog[open]")) return true;
  const tag = target.tagName;
  return (
    tag === "TEXTAREA" || tag === "SELECT" || (tag === "INPUT" && !["range", "checkbox", "radio"].includes(target.type))
  );
}

let numbers = 0;
export function newId(prefix) {
  numbers += 1;
  return `${prefix}-${numbers}`;
}
