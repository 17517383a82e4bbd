// Signing in: a key is sent once, and a session in a cookie stands for it. The key is kept nowhere in the browser.

import { call, connection, get } from "./api.js";
import { fill, h } from "./dom.js";

export let session = { tenant: "", scopes: [], keys: false };
let open = null;

export const may = (scope) => session.scopes.includes(scope);

/** Who is signed in; asks for a key where one is needed. */
export async function signIn() {
  try {
    session = await get("v1/session");
  } catch (problem) {
    if (problem.status !== 401) throw problem;
    await ask("Sign in", "This service is open to those who have a key.");
  }
}

/** Once more, because access has ended; whatever is on the page stays there. */
export async function signInAgain() {
  if (open) return open;
  await ask(
    "Sign in again",
    "Your access has ended. What you entered is kept on this computer and is sent afterwards.",
  );
}

export async function signOut() {
  await call("v1/session", { method: "DELETE" }).catch(() => {});
  location.hash = "";
  location.reload();
}

function ask(title, words) {
  open ??= new Promise((resolve) => {
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const field = h("input", { id: "key", type: "password", autocomplete: "off", required: true, spellcheck: "false" });
    const submit = async (event) => {
      event.preventDefault();
      problem.hidden = true;
      try {
        await call("v1/session", { method: "POST", json: { key: field.value } });
        session = await get("v1/session");
      } catch (error) {
        fill(
          problem,
          error.status === 401
            ? "This key is not valid. Keys begin with mk_ and are shown once, when they are made."
            : error.message,
        );
        problem.hidden = false;
        return;
      }
      field.value = "";
      open = null;
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
        { onsubmit: submit },
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
  return open;
}
