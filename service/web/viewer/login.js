// Signing in: a key is sent once, and a session in a cookie takes its place. The browser keeps the key nowhere.

import { call, connection, get } from "./api.js";
import { fill, h } from "./dom.js";

export let session = { tenant: "", scopes: [], keys: false };
let asking = null; // while the dialog is open

/** Whether the session has a scope. */
export const may = (scope) => session.scopes.includes(scope);

/** Find out who is signed in; asks for a key where one is needed. */
export async function signIn() {
  try {
    session = await get("v1/session");
  } catch (problem) {
    if (problem.status !== 401) throw problem;
    await askForKey("Sign in", "This service is open to people with a key.");
  }
}

/** Sign in once more, because access has ended; everything on the page stays. */
export const signInAgain = () =>
  askForKey(
    "Sign in again",
    "Your access has ended. What you entered is kept on this computer and is sent afterwards.",
  );

export async function signOut() {
  await call("v1/session", { method: "DELETE" }).catch(() => {});
  location.hash = "";
  location.reload();
}

function askForKey(title, words) {
  asking ??= new Promise((resolve) => {
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const field = h("input", {
      id: "key",
      type: "password",
      autocomplete: "off",
      required: true,
      spellcheck: "false",
    });
    const onsubmit = async (event) => {
      event.preventDefault();
      problem.hidden = true;
      try {
        await call("v1/session", { method: "POST", json: { key: field.value } });
        session = await get("v1/session");
      } catch (error) {
        const invalid = "This key is not valid. A key is shown once, when it is made.";
        fill(problem, error.status === 401 ? invalid : error.message);
        problem.hidden = false;
        return;
      }
      field.value = "";
      asking = null;
      dialog.close();
      dialog.remove();
      connection.dispatchEvent(new Event("signed-in"));
      resolve();
    };
    const dialog = h(
      "dialog",
      { class: "login", "aria-labelledby": "login-title", oncancel: (event) => event.preventDefault() },
      h(
        "form",
        { onsubmit },
        h("h2", { id: "login-title" }, title),
        h("p", {}, words),
        h("label", { for: "key" }, "Key"),
        field,
        problem,
        h("div", { class: "buttons" }, h("button", { type: "submit", class: "main" }, "Sign in")),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
    field.focus();
  });
  return asking;
}
