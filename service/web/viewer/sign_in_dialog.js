// The dialog in which a person signs in, with a key or with their organization.

import { call, get } from "./api.js";
import { fill, h } from "./dom.js";

const PROVIDER = "v1/session/oidc";
const FAILED = {
  "scope-missing": "Your account has no role that is known here. Ask who runs this service.",
  "key-required": "Access of your account was revoked. Ask who runs this service.",
  "provider-unavailable": "The sign-in of your organization does not answer. Try again, or use a key.",
};

/**
 * Resolves with the session. `failed` is the code of a sign-in that did not succeed; `staysHere`: what the page holds must
 * stay, so the provider is shown in another tab; else `keepPlace` is called before the page goes there.
 */
export function askToSignIn({ title, words, failed, staysHere, keepPlace }) {
  return new Promise((resolve) => {
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const tell = (text) => {
      fill(problem, text);
      problem.hidden = false;
    };
    if (failed) tell(FAILED[failed] ?? "You were not signed in. Try again.");
    const done = (session) => {
      removeEventListener("focus", lookAgain);
      dialog.close();
      dialog.remove();
      resolve(session);
    };
    const lookAgain = async () => {
      const found = await get("v1/session").catch(() => null);
      if (found && dialog.open) done(found);
    };
    const goToProvider = () => {
      if (staysHere) {
        addEventListener("focus", lookAgain);
        open(PROVIDER, "_blank", "noopener");
        return;
      }
      keepPlace();
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
        done(await get("v1/session"));
      } catch (error) {
        const invalid = "This key is not valid, or was revoked. Ask who runs this service for another one.";
        tell(error.status === 401 ? invalid : error.message);
      }
    };
    const dialog = h(
      "dialog",
      { class: "login", "aria-labelledby": "login-title", onclose: () => dialog.isConnected && dialog.showModal() },
      h(
        "form",
        { onsubmit },
        h("h2", { id: "login-title" }, title),
        h("p", {}, words),
        h("div", { class: "field" }, h("label", { for: "key" }, "Key"), field),
        problem,
        h("div", { class: "buttons" }, provider, h("button", { type: "submit", class: "main" }, "Sign in")),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
    field.focus();
  });
}
