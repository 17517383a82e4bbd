// What was counted in a window, said with the tissue in it: a count without that says nothing.

import { interval, number } from "./format.js";

/** The examined tissue (mm2) in the window of a count, or null without a window. */
const tissueOf = ({ tissue_mm2: tissue, hotspot, area_mm2: area }) =>
  tissue ?? (hotspot ? hotspot.tissue_fraction * area : null); // reports of earlier versions have the fraction only

/** The area of a window, and of the examined tissue in it; without mitoses there is none. */
export function windowWords(found) {
  const window = `${number(found.area_mm2, 2)} mm²`;
  const none = found.area_sufficient ? `any ${window}` : `less than ${window} of examined tissue`;
  const tissue = tissueOf(found);
  return tissue === null ? none : `${window}, ${number(tissue, 2)} mm² of it examined tissue`;
}

/** What all mitoses are counted in. */
export const examinedWords = ({ tissue, region }) =>
  `all ${number(tissue.examined_mm2, 2)} mm² of tissue examined${region ? " in the region" : ""}`;

/** The same tissue in short, for a table that has the area. */
export const tissueWords = (found) => `${number(tissueOf(found), 2)} tissue`;

/** The class of the MAI in words, as its definition has them. */
export function classWords({ high_risk: isHighRisk }, { classes }) {
  return isHighRisk === null ? "too little tissue for a class" : (classes[Number(isHighRisk)] ?? "");
}

/** The window that holds as much tissue as the MAI asks for, where its own holds less; null where there is none. */
export const grownWords = ({ grown }) =>
  grown ? `On enough tissue (the same window grown to ${windowWords(grown)}): ${number(grown.count)}` : null;

/** What the interval of a count does not hold, and what the model's own errors make of the count, where it is known. */
export const correctedWords = ({ corrected }) =>
  corrected
    ? `That interval is of chance alone. By the model's own precision (${number(100 * corrected.precision)} %) and ` +
      `recall (${number(100 * corrected.recall)} %) the count stands for about ${number(corrected.count, 1)} mitoses ` +
      `(${interval(corrected.range)}), on slides like those that it was measured on.`
    : "That interval is of chance alone; the model's errors are not in it.";

/** How many of a review's figures nobody has decided on. */
export const undecided = (figures) => figures.filter((figure) => figure.decision === null).length;

export const decidedWords = (figures) =>
  `${number(figures.length - undecided(figures))} of ${number(figures.length)} decided`;
