// Who decides and who signs: a name, asked once in this browser.

import { fill, h } from "./dom.js";

export const reviewer = () => localStorage.getItem("mitosis-reviewer");

/** A dialog with fields; resolves with their values, or null. `check(values)` may answer with a reason why not. */
export function askFor({ title, words, fields, yes, act }) {
  return new Promise((resolve) => {
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const inputs = fields.map((field) => [field.name, h("input", { id: `ask-${field.name}`, ...field.properties })]);
    const submit = h("button", { type: "submit", class: "main" }, yes);
    const done = (value) => {
      dialog.close();
      dialog.remove();
      resolve(value);
    };
    const dialog = h(
      "dialog",
      { "aria-labelledby": "ask-title", oncancel: () => done(null) },
      h(
        "form",
        {
          onsubmit: async (event) => {
            event.preventDefault();
            const values = Object.fromEntries(inputs.map(([name, input]) => [name, input.value.trim()]));
            submit.disabled = true;
            try {
              await act?.(values);
              done(values);
            } catch (error) {
              fill(problem, error.message);
              problem.hidden = false;
              submit.disabled = false;
            }
          },
        },
        h("h2", { id: "ask-title" }, title),
        words.map((each) => h("p", {}, each)),
        fields.map((field, place) =>
          h("div", { class: "field" }, h("label", { for: `ask-${field.name}` }, field.label), inputs[place][1]),
        ),
        problem,
        h("div", { class: "buttons" }, h("button", { type: "button", onclick: () => done(null) }, "Cancel"), submit),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
    (inputs.find(([, input]) => !input.value) ?? inputs[0])[1].focus();
  });
}

const NAME = { required: true, maxlength: "255", autocomplete: "name", placeholder: "Family, Given" };

/** The reviewer's name; null where it is not given. */
export async function whoReviews() {
  if (reviewer()) return reviewer();
  const given = await askFor({
    title: "Who reviews?",
    words: ["Your name stands beside each of your decisions. It is kept in this browser."],
    fields: [{ name: "reviewer", label: "Name", properties: NAME }],
    yes: "Begin",
  });
  if (!given) return null;
  localStorage.setItem("mitosis-reviewer", given.reviewer);
  return given.reviewer;
}

export function signing(review, counted) {
  return askFor({
    title: "Sign this review",
    words: [
      counted,
      "With your name the result becomes final, and is sent to the systems that wait for it. Later changes need another signature.",
    ],
    fields: [
      { name: "reviewer", label: "Name", properties: { ...NAME, value: reviewer() ?? "" } },
      {
        name: "organization",
        label: "Organisation (optional)",
        properties: {
          maxlength: "255",
          autocomplete: "organization",
          value: localStorage.getItem("mitosis-organization") ?? "",
        },
      },
    ],
    yes: "Sign",
    act: async ({ reviewer: name, organization }) => {
      await review.sign(name, organization);
      localStorage.setItem("mitosis-reviewer", name);
      localStorage.setItem("mitosis-organization", organization);
    },
  });
}
