// What each way of counting means, in words; areas, tables and classes come with the report.

export const DEFINITIONS = {
  mai_baak: [
    "Mitotic activity index (Baak)",
    "Mitoses in the fullest disc of 1.59 mm², which is ten fields of 450 µm; 10 or more is high risk.",
  ],
  mai_who2003: ["MAI, WHO 2003 classes", "The same disc of 1.59 mm²: 0–5, 6–10, more than 10."],
  nottingham_fd: [
    "Nottingham, by field diameter (CAP)",
    "Mitoses in ten fields of 0.55 mm as one disc: 0–8, 9–17, 18 and more.",
  ],
  elston_ellis_1991: [
    "Elston and Ellis 1991",
    "Mitoses in ten fields as one disc, by the microscope of the table named beside it.",
  ],
  per_mm2_cap: ["Per mm² (CAP)", "Mitoses in the fullest 1 mm²: up to 3, 4–7, 8 and more."],
  ipmit: ["IPMIT", "Mitoses in ten fields of 0.52 mm as one disc: 0–7, 8–15, 16 and more."],
  tupac16: ["TUPAC16", "Mitoses in the fullest 4:3 rectangle of 2 mm²: 0–5, 6–10, more than 10."],
  midog: ["MIDOG", "Mitoses in the fullest 4:3 rectangle of 2 mm²; no classes."],
  who_si: ["WHO density", "Mitoses in the fullest disc of 2 mm², with its area; no classes."],
  vet_mc: [
    "Veterinary mitotic count",
    "Mitoses in the fullest 4:3 rectangle of 2.37 mm²; cut-offs are each tumour's own.",
  ],
  gep_nen: ["Neuroendocrine (GEP-NEN)", "Mitoses in the fullest disc of 2 mm²: below 2, 2–20, more than 20."],
};

export const titleOf = (id) => DEFINITIONS[id]?.[0] ?? id;
export const wordsFor = (id) => DEFINITIONS[id]?.[1] ?? "";
