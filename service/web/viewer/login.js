// Signing in: a key is sent once, and a session in a cookie takes its place. The browser keeps the key nowhere.

import { call, connection, get } from "./api.js";
import { fill, h } from "./dom.js";

export let session = { tenant: "", scopes: [], keys: false };
const PROVIDER = "v1/session/oidc";
const PLACE = "mitosis-place"; // what the address showed, while the browser is at the provider
const FAILED = {
  "scope-missing": "Your account has no role that is known here. Ask who runs this service.",
  "key-required": "Access of your account was revoked. Ask who runs this service.",
  "provider-unavailable": "The sign-in of your organization does not answer. Try again, or use a key.",
};
let asking = null; // while the dialog is open

/** Whether the session has a scope. */
export const may = (scope) => session.scopes.includes(scope);

/** Find out who is signed in; asks for a key where one is needed. */
export async function signIn() {
  const failed = new URLSearchParams(location.hash.slice(1)).get("sign-in");
  const place = sessionStorage.getItem(PLACE);
  if (failed || place) history.replaceState(null, "", place || location.pathname);
  sessionStorage.removeItem(PLACE);
  try {
    session = await get("v1/session");
  } catch (problem) {
    if (problem.status !== 401) throw problem;
    await askForKey("Sign in", "This service is open to people with a key.", failed);
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
  if (session.sign_out_url) {
    location.assign(session.sign_out_url);
    return;
  }
  location.hash = "";
  location.reload();
}

function askForKey(title, words, failed = null) {
  asking ??= new Promise((resolve) => {
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const tell = (text) => {
      fill(problem, text);
      problem.hidden = false;
    };
    if (failed) tell(FAILED[failed] ?? "You were not signed in. Try again.");
    const done = () => {
      removeEventListener("focus", lookAgain);
      asking = null;
      dialog.close();
      dialog.remove();
      connection.dispatchEvent(new Event("signed-in"));
      resolve();
    };
    const lookAgain = async () => {
      const found = await get("v1/session").catch(() => null);
      if (!found || !dialog.open) return;
      session = found;
      done();
    };
    const again = session.keys; // what the page holds must stay: the provider is shown in another tab
    const goToProvider = () => {
      if (again) {
        addEventListener("focus", lookAgain);
        open(PROVIDER, "_blank", "noopener");
        return;
      }
      sessionStorage.setItem(PLACE, location.hash);
      location.assign(PROVIDER);
    };
    const provider = h(
      "button",
      { type: "button", hidden: true, onclick: goToProvider },
      "Sign in with your organization",
    );
    get("v1/session/ways")
      .then((ways) => (provider.hidden = !ways.provider))
      .catch(() => {});
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
        tell(error.status === 401 ? invalid : error.message);
        return;
      }
      field.value = "";
      done();
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
        h("div", { class: "buttons" }, provider, h("button", { type: "submit", class: "main" }, "Sign in")),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
    field.focus();
  });
  return asking;
}
