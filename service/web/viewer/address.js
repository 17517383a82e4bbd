// The page's address: its fragment says what is shown, so that it can be sent to a colleague. The browser sends no
// fragment to the server.
//   #                                          start page
//   #analysis=ID&x=5534&y=4383&um=0.25&d=12    a view: its centre (level-0 px), um per screen px, the selected detection
//   #slide=ID&...                              a slide that was not analysed yet

export function readAddress() {
  const fields = new URLSearchParams(location.hash.slice(1));
  const numberOf = (name) => {
    const value = Number(fields.get(name) ?? NaN);
    return Number.isFinite(value) ? value : null;
  };
  const [x, y] = [numberOf("x"), numberOf("y")];
  return {
    analysis: fields.get("analysis"),
    slide: fields.get("slide"),
    view: x === null || y === null ? null : { x, y, um: numberOf("um") },
    selected: fields.get("d"),
  };
}

/** The address of a view of an analysis or of a slide (`kind`). */
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

/** Change the address without a step in the browser's history, which each move of the slide would leave. */
export function replaceAddress(fragment) {
  if (location.hash !== fragment) history.replaceState(null, "", fragment);
}
