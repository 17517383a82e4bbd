// What a reviewer is told where somebody else has changed the review in the meantime, and what can be done about it.

import { hideBanner, showBanner } from "./banner.js";
import { plural } from "./format.js";

/** Show or hide the banner, as the review stands. */
export function showConflict(review) {
  const { conflict, pending } = review;
  if (!conflict) {
    hideBanner("conflict");
    return;
  }
  const who = conflict.by.length ? conflict.by.join(" and ") : "Somebody else";
  const mine = plural(pending.length, "decision");
  const discard = ["Discard mine", () => review.discardMine()];
  if (conflict.loaded) {
    const differ = conflict.differ.length ? ` They decided otherwise on no. ${conflict.differ.join(", ")}.` : "";
    showBanner("conflict", `This is the review of ${who}, with your ${mine} on it, not sent.${differ}`, {
      kind: "bad",
      actions: [["Send mine", () => review.sendMine()], discard],
    });
    return;
  }
  const areKept = pending.length === 1 ? "is kept" : "are kept";
  showBanner("conflict", `${who} has changed this review in the meantime. Your ${mine} ${areKept} and not sent.`, {
    kind: "bad",
    actions: [["Show theirs", () => review.loadTheirs()], discard],
  });
}
