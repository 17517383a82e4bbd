// A dialog with a few fields.

import { fill, h } from "./dom.js";

/**
 * Ask for values. `act(values)` is awaited before the dialog closes; what it throws is shown in it.
 * Resolves with the values by the fields' names, ticks left out, or with null where the dialog was cancelled.
 */
export function askFor({ title, words, fields, yes, act }) {
  return new Promise((resolve) => {
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const inputs = fields.map(({ name, properties }) => [name, h("input", { id: `ask-${name}`, ...properties })]);
    const submitButton = h("button", { type: "submit", class: "main" }, yes);
    const close = (values) => {
      dialog.close();
      dialog.remove();
      resolve(values);
    };
    const onsubmit = async (event) => {
      event.preventDefault();
      const given = inputs.filter(([, input]) => input.type !== "checkbox");
      const values = Object.fromEntries(given.map(([name, input]) => [name, input.value.trim()]));
      submitButton.disabled = true;
      try {
        await act?.(values);
        close(values);
      } catch (error) {
        fill(problem, error.message);
        problem.hidden = false;
        submitButton.disabled = false;
      }
    };
    const rows = fields.map(({ name, label: text }, index) => {
      const [label, input] = [h("label", { for: `ask-${name}` }, text), inputs[index][1]];
      return input.type === "checkbox"
        ? h("div", { class: "field check" }, input, label)
        : h("div", { class: "field" }, label, input);
    });
    const cancelButton = h("button", { type: "button", onclick: () => close(null) }, "Cancel");
    const dialog = h(
      "dialog",
      { "aria-labelledby": "ask-title", oncancel: () => close(null) },
      h(
        "form",
        { onsubmit },
        h("h2", { id: "ask-title" }, title),
        words.map((paragraph) => h("p", {}, paragraph)),
        rows,
        problem,
        h("div", { class: "buttons" }, cancelButton, submitButton),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
    (inputs.find(([, input]) => !input.value) ?? inputs[0])[1].focus();
  });
}
