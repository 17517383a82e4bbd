// What this page knows of the API beforehand: names, with the words people see for them, and limits. A test compares
// each with the service (tests/web/test_contract.py). Everything else comes with the answers.

/** An analysis' `status`. */
export const STATUS_WORDS = {
  queued: "waiting",
  running: "running",
  succeeded: "done",
  failed: "failed",
  cancelled: "cancelled",
};
/** The `status` of a result's `summary`. */
export const SIGNED_WORDS = { preliminary: "not signed", final: "signed", amended: "signed again" };
export const UNFINISHED = ["queued", "running"];

/** What a reviewer may do, as the review's log tells it. */
export const ACTION_WORDS = {
  accept: "accepted",
  reject: "rejected",
  clear: "cleared",
  add: "added",
  note: "noted",
  sign: "signed",
  void: "made the signature void",
};
/** The `decision` that an action leaves on a detection. */
export const DECISIONS = { accept: "accepted", reject: "rejected", clear: null };

/** A result's formats: name, ending of the file's name, what it is for. */
export const FORMATS = {
  json: ["JSON", "report.json", "The whole report"],
  geojson: ["GeoJSON", "geojson", "For QuPath"],
  csv: ["CSV", "csv", "For a spreadsheet"],
  dsa: ["DSA", "dsa.json", "For HistomicsUI and the Digital Slide Archive"],
  asap: ["ASAP", "asap.xml", "For ASAP"],
  coco: ["COCO", "coco.json", "Boxes, for COCO's tools"],
  midog: ["MIDOG", "midog.json", "Boxes, as MIDOG has them"],
  fhir: ["FHIR", "fhir.json", "R4 bundle: report and observations"],
  hl7: ["HL7", "hl7", "v2 message ORU^R01"],
  dicom: ["DICOM", "zip", "Annotations and structured report"],
  pdf: ["PDF", "pdf", "For people, to be filed beside the case"],
  "dicom-map": ["DICOM map", "map.dcm", "Where the network saw mitoses: parametric map"],
  "dicom-area": ["DICOM area", "area.dcm", "The tissue that was examined: segmentation"],
  "ome-tiff": ["OME-TIFF", "ome.tif", "The probability map, for QuPath and napari"],
};

/** Why a place cannot be examined. */
export const HINDRANCE_WORDS = {
  pen: "pen or ink",
  "out-of-focus": "out of focus",
  fold: "fold",
  edge: "edge or dirt",
  black: "black border",
};

/** Why a result is held. */
export const HOLD_WORDS = {
  "patient-conflict": "The patient is not clear",
  "accession-conflict": "The accession is not clear",
  "container-conflict": "The slide is not clear",
  "second-order": "There is another order",
  "second-result": "Another result is signed",
};

export const TUS_VERSION = "1.0.0";
export const TEXT_LENGTH = 255; // of a name and of an accession number, in characters
export const REASON_LENGTH = 1000; // of why a person releases a result, or gives it to another order
export const CHANGES_PER_REQUEST = 500;
export const ROWS_PER_PAGE = 50;
export const CROP_UM = 64; // side of the square round a figure that its picture shows
