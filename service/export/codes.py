"""Every code that leaves this service, in one table: FHIR, HL7 v2 and DICOM take theirs from here.

Where a public code exists for exactly this, it comes first and ours second; where none was found, ours stands alone.
No terminology server was asked. What each public code was checked against:

    LOINC 85300-2        HL7 breast cancer implementation guide 2018Sep, module Pathologie 2026 of the German MII
    SNOMED CT 406094009  the same module, examples "Mitosezahl"; OMOP concept 4227243 of the same name
    SNOMED CT, DCM       DICOM PS3.16 as in pydicom 3.0.2: 42798000 in CID 7469, 91723000, 85756007 in CID 7150,
                         1179252003 in CID 8103, 373066001 and 373067005 in CID 230, 112703, 121006, 121007, 122157,
                         123108, 123110 in Annex D
    HL7, FHIR R4         tables 0074, 0078, 0103, 0136, 0203, 0487; data-absent-reason; provenance-participant-type

Not used, although they look near: LOINC 11526-1 and 60568-3 (a pathologist's report, which a measurement is not),
SNOMED CT 371472000 (read as "Mitotic count score" by one guide and as "Mitotic count" by another).

Ours: `urn:mitosis:code` in FHIR, `99MIT` in HL7 v2 (table 0396: 99zzz) and DICOM (private designators begin with 99).
The codes of counts are the names of their definitions (`RESULT_NAMES`), cut to DICOM's 16 characters.
"""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class System:
    """A coding system by its names in FHIR (URI) and in HL7 v2 and DICOM (designator)."""

    uri: str
    designator: str


@dataclass(frozen=True, slots=True)
class Code:
    """One code of one system, with what it means."""

    system: System
    value: str
    meaning: str


Concept: TypeAlias = tuple[Code, ...]  # one thing in several systems, the preferred first

LOINC = System("http://loinc.org", "LN")
SNOMED = System("http://snomed.info/sct", "SCT")
DCM = System("http://dicom.nema.org/resources/ontology/DCM", "DCM")
UCUM = System("http://unitsofmeasure.org", "UCUM")
LOCAL = System("urn:mitosis:code", "99MIT")
V2_0074 = System("http://terminology.hl7.org/CodeSystem/v2-0074", "HL70074")
V2_0103 = System("http://terminology.hl7.org/CodeSystem/v2-0103", "HL70103")
INTERPRETATION = System("http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", "HL70078")
V2_0136 = System("http://terminology.hl7.org/CodeSystem/v2-0136", "HL70136")
V2_0203 = System("http://terminology.hl7.org/CodeSystem/v2-0203", "HL70203")
V2_0487 = System("http://terminology.hl7.org/CodeSystem/v2-0487", "HL70487")
ABSENT_REASON = System("http://terminology.hl7.org/CodeSystem/data-absent-reason", "")
OBSERVATION_CATEGORY = System("http://terminology.hl7.org/CodeSystem/observation-category", "")
PARTICIPANT = System("http://terminology.hl7.org/CodeSystem/provenance-participant-type", "")


def _ours(value: str, meaning: str, *public: Code) -> Concept:
    return (*public, Code(LOCAL, value, meaning))


# Units

COUNT = Code(UCUM, "1", "no units")
PER_MM2 = Code(UCUM, "/mm2", "per square millimeter")
MM2 = Code(UCUM, "mm2", "square millimeter")
UM = Code(UCUM, "um", "micrometer")
PIXEL = Code(UCUM, "{pixel}", "level-0 pixels")

# What a result is like

HIGH, NORMAL = Code(INTERPRETATION, "H", "High"), Code(INTERPRETATION, "N", "Normal")
PROCESSING = {"T": Code(V2_0103, "T", "Training"), "D": Code(V2_0103, "D", "Debugging")}

# The report, and who made it

REPORT = _ours("mitotic-report", "Mitotic activity in a whole-slide image")
LABORATORY = Code(OBSERVATION_CATEGORY, "laboratory", "Laboratory")
SURGICAL_PATHOLOGY = Code(V2_0074, "SP", "Surgical Pathology")
SOFTWARE = _ours("software", "Software version")
MODEL = _ours("model", "Model")
MODEL_SHA256 = _ours("model-sha256", "SHA-256 of the model's weights")
THRESHOLD = _ours("threshold", "Least probability that counts")
SLIDE_NAME = _ours("slide-name", "Slide file")
SLIDE_SHA256 = _ours("slide-sha256", "SHA-256 of the slide file")
VIEWER = _ours("viewer", "The result in the viewer")
CONTAINER = _ours("container", "Slide identifier")
BLOCK = _ours("block", "Block")
STAIN = _ours("stain", "Stain")
ACCESSION = Code(V2_0203, "ACSN", "Accession ID")
PLACER_NUMBER = Code(V2_0203, "PLAC", "Placer Identifier")
FILLER_NUMBER = Code(V2_0203, "FILL", "Filler Identifier")
TISSUE = Code(V2_0487, "TISS", "Tissue")
SLIDE = Code(SNOMED, "1179252003", "Slide")
NOT_PERFORMED = Code(ABSENT_REASON, "not-performed", "Not Performed")
ASSEMBLER = Code(PARTICIPANT, "assembler", "Assembler")
VERIFIER = Code(PARTICIPANT, "verifier", "Verifier")
V2_YES, V2_NO = Code(V2_0136, "Y", "Yes"), Code(V2_0136, "N", "No")

# Counts of the whole, and what belongs to any count

TOTAL = _ours("mitoses-total", "Mitoses in the examined tissue")
DENSITY = _ours("mitoses-per-mm2", "Mitoses per mm2 of examined tissue")
EXAMINED = _ours("examined-area", "Examined tissue")
IN_WINDOW = _ours("mitoses-window", "Mitoses in the window")
WINDOW_AREA = _ours("window-area", "Area of the window", Code(SNOMED, "42798000", "Area"))
LOWER = _ours("count-lower", "Lower end of the 95 % Poisson interval of the count")
UPPER = _ours("count-upper", "Upper end of the 95 % Poisson interval of the count")
WINDOW_TISSUE = _ours("window-tissue", "Examined tissue in the window")
AREA_SUFFICIENT = _ours("area-sufficient", "The window holds the tissue that the definition asks for")
NEAR_CUTOFF = _ours("near-cutoff", "The interval holds a cut-off")
HIGH_RISK = _ours("high-risk", "The count reaches the cut-off of high risk")

# The same window grown until it holds the tissue that the definition asks for

GROWN_COUNT = _ours("grown-count", "Mitoses in the grown window")
GROWN_AREA = _ours("grown-area", "Area of the grown window")
GROWN_TISSUE = _ours("grown-tissue", "Examined tissue in the grown window")
GROWN_SCORE = _ours("grown-score", "Score by the grown window")
GROWN_HIGH_RISK = _ours("grown-high-risk", "The grown window's count reaches the cut-off")

# The hot-spot: a window's centre and size

HOTSPOT = _ours("hotspot", "Mitotic hot-spot")
HOTSPOT_X = _ours("hotspot-x", "Hot-spot centre, x")
HOTSPOT_Y = _ours("hotspot-y", "Hot-spot centre, y")
HOTSPOT_RADIUS = _ours("hotspot-radius", "Hot-spot radius")
HOTSPOT_WIDTH = _ours("hotspot-width", "Hot-spot width")
HOTSPOT_HEIGHT = _ours("hotspot-height", "Hot-spot height")
HOTSPOT_TISSUE = _ours("hotspot-tissue", "Share of the hot-spot that is tissue")
HOTSPOT_SECTIONS = _ours("hotspot-sections", "Pieces of tissue in the hot-spot that lie apart")

# Counts by definition

DEFINITIONS: dict[str, Concept] = {
    value: _ours(value.replace("_1991", ""), meaning, *public)  # a code of DICOM has at most 16 characters
    for value, meaning, *public in (
        ("mai_baak", "Mitotic activity index", Code(SNOMED, "406094009", "Number of mitoses per 10 high power fields")),
        (
            "nottingham_fd",
            "Nottingham mitotic score",
            Code(LOINC, "85300-2", "Mitotic rate [Score] in Breast cancer specimen by Nottingham"),
        ),
        ("elston_ellis_1991", "Mitotic score by Elston and Ellis 1991"),  # of a field that is none of these
        ("elston_ellis_1991_440", "Mitotic score by Elston and Ellis 1991, field 0.44 mm"),
        ("elston_ellis_1991_590", "Mitotic score by Elston and Ellis 1991, field 0.59 mm"),
        ("elston_ellis_1991_630", "Mitotic score by Elston and Ellis 1991, field 0.63 mm"),
        ("mai_who2003", "Mitotic activity index, three classes"),
        ("per_mm2_cap", "Mitotic score by mitoses per mm2"),
        ("ipmit", "Mitotic score in ten fields of 0.52 mm"),
        ("tupac16", "Mitotic score by TUPAC 2016"),
        ("midog", "Mitoses in a region of 2 mm2"),
        ("who_si", "Mitoses in 2 mm2 of the hot-spot"),
        ("vet_mc", "Veterinary mitotic count in 2.37 mm2"),
        ("gep_nen", "Mitotic class of neuroendocrine neoplasms in 2 mm2"),
    )
}

# DICOM

MITOTIC_FIGURE = Code(LOCAL, "mitotic-figure", "Mitotic figure")
ANATOMICAL_STRUCTURE = Code(SNOMED, "91723000", "Anatomical Structure")
PROBABILITY = Code(DCM, "122157", "Probability")
TISSUE_CATEGORY = Code(SNOMED, "85756007", "Tissue")
MULTISPECTRAL = Code(DCM, "123108", "Multispectral Processing")
ARTIFICIAL_INTELLIGENCE = Code(DCM, "123110", "Artificial Intelligence")
WHOLE_SLIDE_IMAGING = Code(DCM, "112703", "Whole Slide Imaging")
PERSON, DEVICE = Code(DCM, "121006", "Person"), Code(DCM, "121007", "Device")
YES, NO = Code(SNOMED, "373066001", "Yes"), Code(SNOMED, "373067005", "No")


def definition(name: str) -> Concept:
    """Give the concept of a count by its name in `RESULT_NAMES`; one that this table does not know keeps its name."""
    return DEFINITIONS.get(name) or _ours(name, name)


def score(value: int) -> Code:
    """Give the concept of a definition's class; 1 is the lowest."""
    return Code(LOCAL, str(value), f"Score {value}")
