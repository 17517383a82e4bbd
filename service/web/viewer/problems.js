// The service's error codes in plain words, and what to do; its own sentence stands beside them.

const ADVICE = {
  "not-a-slide":
    "This file is not a slide that can be read. Send SVS, NDPI, MRXS (as a zip with its folder), TIFF, DICOM (as a zip), PNG or JPEG.",
  "slide-damaged":
    "The file is damaged or was cut short. Copy it again from the scanner or archive and send it once more.",
  "slide-too-large": "The file claims more pixels than it can hold. Export it again from the scanner's software.",
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
  "upload-incomplete": "The upload was cut short. Drop the same file again: it goes on where it stopped.",
  "upload-timeout": "The upload stood still. Drop the same file again: it goes on where it stopped.",
  "storage-full": "The service's disk is full. Tell whoever runs it.",
  "queue-unavailable": "The service cannot take work at the moment. Try again in a minute.",
  "database-unavailable": "The service's database does not answer. Try again in a minute.",
  "worker-lost":
    "The analysis stopped its worker several times. Start it again; if that repeats, tell whoever runs the service.",
  "time-limit-exceeded": "The analysis took longer than allowed. Choose a region, or have the limit raised.",
  "too-many-requests": "Too many requests in a minute. The page goes on by itself.",
  "key-required": "You are not signed in, or your access has ended. Sign in again.",
  "scope-missing": "Your key does not allow this. Ask whoever runs the service.",
  "not-found": "This is not there (any more).",
  "revision-conflict": "Somebody else has changed this review meanwhile.",
  "server-unreachable": "The service does not answer. The page tries again by itself.",
};

/** What went wrong with a request, or with an analysis. */
export class Problem extends Error {
  constructor(status, members) {
    super(members.detail ?? members.title ?? "something went wrong");
    this.status = status;
    this.code = members.code ?? "unknown";
    this.members = members;
  }
}

export const advice = (code) => ADVICE[code] ?? "Try again; if that repeats, tell whoever runs the service.";
