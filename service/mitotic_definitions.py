"""The definitions by which mitoses are counted: window, exact area and cut-offs of each.

Every definition here needs nothing but detections and the slide's um per pixel. Areas are mm2, diameters mm. A high
power field (HPF) is a disc of its field diameter; ten of them are counted as one window of the same area.

`cutoffs` are the smallest counts of the second and of the third class: (6, 11) reads 0 to 5, 6 to 10, 11 or more.

A definition's words (`summary`, `classes`) are made of its numbers, so that no other place has to repeat them.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import pi
from typing import Literal

WindowShape = Literal["circle", "rectangle"]
RECTANGLE_SIDES = (4, 3)  # of a rectangular window: width to height


@dataclass(frozen=True, slots=True)
class CountDefinition:
    """One published way to count mitoses and to class the count."""

    id: str
    title: str
    table_version: str  # names source and year; ids alone do not tell the 1991 table from CAP's
    area_mm2: float
    source: str
    cutoffs: tuple[int, ...] = ()  # smallest count of each next class, ascending; empty: the definition has no classes
    shape: WindowShape = "circle"
    field_diameter_mm: float | None = None  # of the microscope, where the area is that of ten of its fields
    highest_class: str = ""  # the source's name for it
    remark: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The range of counts of each class in words, the lowest first; none where there are no cut-offs."""
        if not self.cutoffs:
            return ()
        ranges = [f"{first} to {following - 1}" for first, following in pairwise((0, *self.cutoffs))]
        name = f" ({self.highest_class})" if self.highest_class else ""
        return (*ranges, f"{self.cutoffs[-1]} or more{name}")

    @property
    def summary(self) -> str:
        """One sentence for people: the window, what it is derived from, the classes. Areas to 0.01 mm2."""
        width, height = RECTANGLE_SIDES
        window = "circle" if self.shape == "circle" else f"{width}:{height} rectangle"
        fields = f", ten fields {self.field_diameter_mm:.2f} mm across" if self.field_diameter_mm else ""
        classes = f"classes {', '.join(self.classes)}" if self.classes else "no classes"
        remark = f", {self.remark}" if self.remark else ""
        return f"Mitoses in the most active {window} of {self.area_mm2:.2f} mm²{fields}; {classes}{remark}."


def ten_fields_mm2(field_diameter_mm: float) -> float:
    """Return the area in mm2 of ten high power fields of the given diameter in mm."""
    return 10 * pi * field_diameter_mm**2 / 4


MAI_BAAK = CountDefinition(
    id="mai_baak",
    title="Mitotic activity index (MAI, Baak)",
    table_version="Jannink 1995 definition, Baak 2005 cut-off",
    area_mm2=ten_fields_mm2(0.45),
    cutoffs=(10,),
    source="Jannink, van Diest, Baak 1995 Hum Pathol 26:1086; Baak 2005 J Clin Oncol 23:5993",
    field_diameter_mm=0.45,
    highest_class="high risk",
)

PER_MM2_CAP = CountDefinition(
    id="per_mm2_cap",
    title="Mitoses per mm² (CAP)",
    table_version="HL7 breast cancer IG 2018May, 1 mm2",
    area_mm2=1.0,
    cutoffs=(4, 8),
    source="HL7 breast cancer implementation guide 2018May, code system",
)

SCORE_DEFINITIONS: tuple[CountDefinition, ...] = (
    CountDefinition(
        id="mai_who2003",
        title="MAI, WHO 2003 classes",
        table_version="WHO 2003 classes, Skaland study group",
        area_mm2=ten_fields_mm2(0.45),
        cutoffs=(6, 11),
        source="abstract of the Skaland study group, 433 patients",
        field_diameter_mm=0.45,
    ),
    # A scanned slide has no eyepiece, so the field is our choice: field number 22 at x40, a common microscope's, and
    # the one row of the table that a third source confirms (Kyoto University: 0-8 / 9-17 / 18 and more).
    CountDefinition(
        id="nottingham_fd",
        title="Nottingham score (CAP)",
        table_version="CAP Breast.Invasive 4.10 Table 1, 0.55 mm",
        area_mm2=ten_fields_mm2(0.55),
        cutoffs=(9, 18),
        source="CAP Breast.Invasive 4.10 Table 1 (NHS/RCPath)",
        field_diameter_mm=0.55,
    ),
    # pathologyoutlines prints 6-11 and 11+ for 0.44 mm, which overlap: taken as a misprint of 6-10.
    *(
        CountDefinition(
            id="elston_ellis_1991",
            title=f"Elston and Ellis 1991, {field_diameter_mm:.2f} mm fields",
            table_version=f"Elston & Ellis 1991, field {field_diameter_mm:.2f} mm",
            area_mm2=ten_fields_mm2(field_diameter_mm),
            cutoffs=cutoffs,
            source=source,
            field_diameter_mm=field_diameter_mm,
        )
        for field_diameter_mm, cutoffs, source in (
            (0.44, (6, 11), "pathologyoutlines.com/topic/breastmalignanthistologic.html"),
            (0.59, (10, 20), "HL7 breast cancer implementation guide 2018Sep"),
            (0.63, (12, 23), "pathologyoutlines.com/topic/breastmalignanthistologic.html"),
        )
    ),
    PER_MM2_CAP,
    CountDefinition(
        id="ipmit",
        title="IPMIT",
        table_version="Pantanowitz 2020, 0.52 mm",
        area_mm2=ten_fields_mm2(0.52),
        cutoffs=(8, 16),
        source="Pantanowitz 2020; equals row 0.52 mm of the CAP table",
        field_diameter_mm=0.52,
    ),
    CountDefinition(
        id="tupac16",
        title="TUPAC 2016",
        table_version="TUPAC 2016 challenge page",
        shape="rectangle",
        area_mm2=2.0,
        cutoffs=(6, 11),
        source="tupac.grand-challenge.org/Tasks-and-Evaluation",
    ),
    CountDefinition(
        id="midog",
        title="MIDOG region",
        table_version="MIDOG 2021 region of interest",
        shape="rectangle",
        area_mm2=2.0,
        source="MIDOG challenge papers: hot-spot region of about 2 mm2",
    ),
    CountDefinition(
        id="who_si",
        title="Mitotic density (WHO)",
        table_version="Cree 2021, hotspot, 2 mm2",
        area_mm2=2.0,
        source="Cree 2021 Mod Pathol 34:1651",
        remark="the density is stated with area and method",
    ),
    CountDefinition(
        id="vet_mc",
        title="Veterinary mitotic count",
        table_version="Meuten 2016, 2.37 mm2",
        shape="rectangle",
        area_mm2=2.37,
        source="Meuten 2016: veterinary mitotic count",
        remark="each tumour has cut-offs of its own",
    ),
    CountDefinition(
        id="gep_nen",
        title="Neuroendocrine neoplasms (GEP-NEN)",
        table_version="Rindi 2022, 2 mm2",
        area_mm2=2.0,
        cutoffs=(2, 21),
        source="Rindi 2022, as cited by others; gastro-entero-pancreatic neuroendocrine neoplasms",
    ),
)


def _result_name(definition: CountDefinition) -> str:
    """Name a definition by its id, with the field (um) where several share that."""
    alone = sum(each.id == definition.id for each in SCORE_DEFINITIONS) < 2
    return definition.id if alone else f"{definition.id}_{1000 * (definition.field_diameter_mm or 0):.0f}"


# what a result says of one count, by the definition's id and table: names that no two of them share
RESULT_NAMES: dict[tuple[str, str], str] = {
    (each.id, each.table_version): _result_name(each) for each in (MAI_BAAK, *SCORE_DEFINITIONS)
}

RESULTS = ("total", "density", *RESULT_NAMES.values())  # what other systems may be told of
