// The page's address: its fragment says what is shown, so that it can be sent to a colleague. It never leaves the browser.
//   #                                          start page
//   #analysis=ID&x=5534&y=4383&um=0.25&d=12    a view: its centre (level-0 px), um per screen px, the selected detection
//   #slide=ID&...                              a slide that was not analysed yet

export function read() {
  const fields = new URLSearchParams(location.hash.slice(1));
  const numberOf = (name) =>
    fields.has(name) && Number.isFinite(Number(fields.get(name))) ? Number(fields.get(name)) : null;
  return {
    analysis: fields.get("analysis"),
    slide: fields.get("slide"),
    view:
      numberOf("x") === null || numberOf("y") === null
        ? null
        : { x: numberOf("x"), y: numberOf("y"), um: numberOf("um") },
    selected: fields.get("d"),
  };
}

export function viewAddress(kind, id, view, selected) {
  const fields = new URLSearchParams({ [kind]: id });
  if (view) {
    fields.set("x", Math.round(view.x));
    fields.set("y", Math.round(view.y));
    fields.set("um", view.um.toPrecision(4));
  }
  if (selected) fields.set("d", selected);
  return `#${fields}`;
}

/** Change the address without leaving a step in the history for each move of the slide. */
export function replace(fragment) {
  if (location.hash !== fragment) history.replaceState(null, "", fragment);
}
