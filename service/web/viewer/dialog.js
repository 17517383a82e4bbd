// A dialog with a few fields.

import { fill, h } from "./dom.js";

/**
 * Ask for values. `act(values)` is awaited before the dialog closes, and cannot be cancelled; what it throws is shown.
 * Resolves with the values by the fields' names, ticks left out, or with null where the dialog was cancelled, the page
 * left, or another dialog is open.
 */
export async function askFor({ title, words, fields, yes, act }) {
  if (document.querySelector("dialog[open]")) return null;
  return new Promise((resolve) => {
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const inputs = fields.map(({ name, properties }) => [name, h("input", { id: `ask-${name}`, ...properties })]);
    const submitButton = h("button", { type: "submit", class: "main" }, yes);
    const setBusy = (busy) => {
      submitButton.disabled = cancelButton.disabled = busy;
      fill(submitButton, busy ? "Sending…" : yes);
    };
    const close = (values) => {
      removeEventListener("hashchange", cancel);
      dialog.close();
      dialog.remove();
      resolve(values);
    };
    const cancel = () => close(null);
    // Escape, pressed twice, closes whatever a listener to `cancel` says
    const onclose = () => dialog.isConnected && (cancelButton.disabled ? dialog.showModal() : cancel());
    const onsubmit = async (event) => {
      event.preventDefault();
      const given = inputs.filter(([, input]) => input.type !== "checkbox");
      const values = Object.fromEntries(given.map(([name, input]) => [name, input.value.trim()]));
      setBusy(true);
      try {
        await act?.(values);
        close(values);
      } catch (error) {
        fill(problem, error.message);
        problem.hidden = false;
        setBusy(false);
      }
    };
    const rows = fields.map(({ name, label: text }, index) => {
      const [label, input] = [h("label", { for: `ask-${name}` }, text), inputs[index][1]];
      return input.type === "checkbox"
        ? h("div", { class: "field check" }, input, label)
        : h("div", { class: "field" }, label, input);
    });
    const cancelButton = h("button", { type: "button", onclick: cancel }, "Cancel");
    const dialog = h(
      "dialog",
      { "aria-labelledby": "ask-title", onclose },
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
    addEventListener("hashchange", cancel);
    dialog.showModal();
    (inputs.find(([, input]) => !input.value) ?? inputs[0])[1].focus();
  });
}
