// The service's error codes in plain words, and what to do; the service's own sentence stands beside them.

import { h } from "./dom.js";

export const SLIDE_FORMATS = "SVS, NDPI, TIFF, BIF, SCN, PNG, JPEG; MRXS and DICOM as a zip of their folder";

export const ADVICE = {
  "not-a-slide": `This file is not a slide that can be read. Send ${SLIDE_FORMATS}.`,
  "slide-damaged":
    "The file is damaged or was cut short. Copy it again from the scanner or archive and send it once more.",
  "slide-too-large": "The file claims more pixels than it can hold. Export it again from the scanner's software.",
  "slide-unsupported":
    "The file is sound, but of a kind that is not read here. Convert it as it says, or export it anew.",
  "slide-ambiguous":
    "The file holds several pictures that could each be the slide. Export each into a file of its own.",
  "slide-changed": "The slide's file is not the one that was accepted. Submit it anew.",
  "reference-forbidden": "The slide names files outside its own folder. Export it into one file, or one folder.",
  "stain-not-he": "The tissue does not look stained with H&E, so it was not analysed.",
  "pixels-unsupported": "Only 8-bit colour images of H&E stained tissue can be analysed.",
  "mpp-unknown":
    "The file does not say how large a pixel is. Enter the µm per pixel (0.25 for most ×40 scanners) and start again.",
  "mpp-invalid": "No microscope has this µm per pixel. Most ×40 scanners have about 0.25.",
  "resolution-too-low": "The slide was scanned too coarsely. Mitoses need ×20 or better; scan it again.",
  "region-outside": "The region does not lie within the slide. Choose it on the slide itself.",
  "region-invalid": "The region needs four whole numbers: left, top, width, height.",
  "parameter-invalid": "One of the values cannot be used.",
  "request-invalid": "One of the entries cannot be used.",
  "archive-unsafe": "The zip holds something other than one slide. Pack the slide's own files again.",
  "upload-too-large": "The file is larger than this service takes.",
  "upload-incomplete": "The upload was cut short. Drop the same file again: it continues where it stopped.",
  "upload-timeout": "The upload stood still for too long. Drop the same file again: it continues where it stopped.",
  "storage-full": "The service's disk is full. Tell the people who run it.",
  "queue-unavailable": "The service cannot take work at the moment. Try again in a minute.",
  "database-unavailable": "The service's database does not answer. Try again in a minute.",
  "worker-lost":
    "The analysis stopped its worker several times. Start it again; if that repeats, tell the people who run the service.",
  "time-limit-exceeded": "The analysis took longer than allowed. Choose a region, or have the limit raised.",
  "too-many-requests": "Too many requests in a minute. The page continues by itself.",
  "key-required": "You are not signed in, or your access has ended. Sign in again.",
  "scope-missing": "Your key does not allow this. Ask the people who run the service.",
  "not-found": "This does not exist, or does not exist any more.",
  "revision-conflict": "Somebody else has changed this review in the meantime.",
  "server-unreachable": "The service does not answer. The page tries again by itself.",
};

/** What went wrong with a request, or with an analysis: HTTP status, code, and the problem details' members. */
export class Problem extends Error {
  constructor(status, members) {
    super(members.detail ?? members.title ?? "something went wrong");
    this.status = status;
    this.code = members.code ?? "unknown";
    this.members = members;
  }
}

export const advice = (code) => ADVICE[code] ?? "Try again; if that repeats, tell the people who run the service.";

/** What to do, and the service's own sentence. */
export const problemElements = ({ code, message }) => [
  h("strong", {}, advice(code)),
  " ",
  h("span", { class: "quiet" }, message),
];
