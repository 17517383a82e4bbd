// All analyses as they change: one stream, only while the page is visible (a browser has few connections to one host).

import { get, reportConnectionLost, whenBack } from "./api.js";

const REOPEN_MS = 2000;

/**
 * Follow all analyses; returns a function that stops it. `onReady()` comes when the newest have been sent,
 * `onWorkers(alive)` says how many workers there are.
 */
export function watchAnalyses({ onStatus, onDeleted, onReady, onWorkers }) {
  let source = null;
  let stopped = false;

  function open() {
    if (stopped || source || document.hidden) return;
    source = new EventSource("v1/events");
    source.addEventListener("status", (event) => onStatus(JSON.parse(event.data)));
    source.addEventListener("deleted", (event) => onDeleted(JSON.parse(event.data).id));
    source.addEventListener("ready", () => onReady?.());
    source.addEventListener("workers", (event) => onWorkers?.(JSON.parse(event.data).alive));
    source.addEventListener("error", onError);
  }

  async function onError() {
    if (source?.readyState !== EventSource.CLOSED) {
      get("healthz").catch(reportConnectionLost); // the browser connects again by itself; the banner should say so
      return;
    }
    close();
    const signedIn = await get("v1/session").catch(() => null);
    if (signedIn) setTimeout(open, REOPEN_MS);
  }

  function close() {
    source?.close();
    source = null;
  }

  const onVisibility = () => (document.hidden ? close() : open());
  const reopen = () => {
    close();
    open();
  };
  document.addEventListener("visibilitychange", onVisibility);
  const stop = whenBack(reopen);
  addEventListener("pagehide", close);
  open();
  return () => {
    stopped = true;
    close();
    document.removeEventListener("visibilitychange", onVisibility);
    stop();
    removeEventListener("pagehide", close);
  };
}
