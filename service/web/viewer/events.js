// All analyses as they change: one stream, only while the page is seen (a browser has few connections to one host).

import { connection, get, noticeLoss } from "./api.js";

/** Calls `onStatus(analysis)`, `onDeleted(id)` and `onReady()`; gives a function that ends it. */
export function watch({ onStatus, onDeleted, onReady }) {
  let source = null;
  let ended = false;

  function open() {
    if (ended || source || document.hidden) return;
    source = new EventSource("v1/events");
    source.addEventListener("status", (event) => onStatus(JSON.parse(event.data)));
    source.addEventListener("deleted", (event) => onDeleted(JSON.parse(event.data).id));
    source.addEventListener("ready", () => onReady?.());
    source.addEventListener("error", () => {
      if (source?.readyState !== EventSource.CLOSED) {
        get("healthz").catch(noticeLoss); // the browser asks again by itself; the banner should know
        return;
      }
      close();
      get("v1/session").then(
        () => setTimeout(open, 2000),
        () => {},
      );
    });
  }

  function close() {
    source?.close();
    source = null;
  }

  const onSight = () => (document.hidden ? close() : open());
  const onBack = () => {
    close();
    open();
  };
  document.addEventListener("visibilitychange", onSight);
  connection.addEventListener("back", onBack);
  connection.addEventListener("signed-in", onBack);
  addEventListener("pagehide", close);
  open();
  return () => {
    ended = true;
    close();
    document.removeEventListener("visibilitychange", onSight);
    connection.removeEventListener("back", onBack);
    connection.removeEventListener("signed-in", onBack);
    removeEventListener("pagehide", close);
  };
}
