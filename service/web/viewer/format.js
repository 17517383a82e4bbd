// Numbers and times as people read them.

export const UM_PER_PX_AT_X1 = 10; // a microscope's x40 is shown by 10 / 40 um per pixel

/** A length in um or mm. */
export const length = (um) =>
  Math.abs(um) >= 1000 ? `${(um / 1000).toFixed(2)} mm` : `${um.toFixed(um < 10 ? 1 : 0)} µm`;

/** A place on the slide in um, from its place in level-0 px. */
export const placeInUm = (x, y, mpp) => `${(x * mpp[0]).toFixed(1)}, ${(y * mpp[1]).toFixed(1)} µm`;

/** The magnification of a microscope that shows as much: x40 for 0.25 um per screen px. */
export const magnification = (umPerPx) => UM_PER_PX_AT_X1 / umPerPx;

export const number = (value, digits = 0) =>
  value === null || value === undefined
    ? "–"
    : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

export const interval = ([low, high]) => `${number(low, 1)} to ${number(high, 1)}`;

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

/** Date and time in the browser's time zone, as 2026-11-26 18:40 CET: alike in all languages, true on paper. */
export const dateAndTime = (text) =>
  new Date(text).toLocaleString("sv", {
    year: "numeric",
    month: "2-digit",
    day: "2-digit",
    hour: "2-digit",
    minute: "2-digit",
    timeZoneName: "short",
  });
