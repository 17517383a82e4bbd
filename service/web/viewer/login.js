// Signing in: a key is sent once, and a session in a cookie takes its place. The browser keeps the key nowhere.

import { connection, get } from "./api.js";

export let session = { tenant: "", scopes: [], keys: false, second_reading: "off" };
const PLACE = "mitosis-place"; // what the address showed, while the browser is at the provider
let asking = null; // a promise, while the dialog is open

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

function askForKey(title, words, failed = null) {
  asking ??= openDialog({ title, words, failed, staysHere: session.keys, keepPlace }).finally(() => (asking = null));
  return asking;
}

const keepPlace = () => sessionStorage.setItem(PLACE, location.hash);

async function openDialog(told) {
  const { askToSignIn } = await import("./sign_in_dialog.js");
  session = await askToSignIn(told);
  connection.dispatchEvent(new Event("signed-in"));
}
