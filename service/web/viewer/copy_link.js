// The address of what is seen, into the clipboard.

import { showBanner } from "./banner.js";

/** Where the browser lets no page write there, people copy it themselves. */
export function copyLink() {
  navigator.clipboard?.writeText(location.href).then(
    () => showBanner("copied", "The address of this view is copied.", { kind: "good", fades: true }),
    () => showBanner("copied", "Copy the address from the browser's address bar.", { fades: true }),
  );
}
