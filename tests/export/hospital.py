"""Reports and orders as a laboratory has them: counted by every definition, with names that are no ASCII."""

import math
from functools import cache

import numpy as np

from service.activity_report import Counts, activity_of
from service.mitotic_activity import count_activity
from service.mitotic_figures import MERGE_UM
from service.order import Confirmation, Order, OrderedService, Standing
from service.report import Detection, Rectangle, Report
from service.sections import Sections
from tests.glass import all_tissue, fragments

MPP = (0.25, 0.5)  # not square: what takes one for the other is found
SIZE = (20_000, 16_000)  # level-0 px
CREATED = "2026-01-02T03:04:05Z"
MODEL_SHA256, SLIDE_SHA256 = "1" * 64, "2" * 64
NASTY = "Prüf & Söhne|Labor^Ost~\\Nord"  # every separator of HL7 v2, and umlauts

PRELIMINARY, FINAL = Standing("preliminary"), Standing("final")
ORDER = Order(
    accession_number="B26-00017",
    specimen_id="B26-00017-A",
    container_id="B26-00017-A-1-1",
    block="A1",
    stain="H&E",
    ordering_provider="Müßig, Jürgen",
    ordering_provider_id="4711",
    patient_id="1234567",
    patient_name="Ångström-Łukasiewicz, Zoë",
    patient_birth_date="1961-02-28",
    patient_sex="female",
    placer_order_number="ORD-99",
    filler_order_number="F-17",
    service=OrderedService(code="MAI", text="Mitosenzählung", system="L"),
)


def confirmation() -> Confirmation:
    return Confirmation.model_validate_json(
        '{"name": "Weiß, Käthe", "organization": "Institut für Pathologie", "at": "2026-01-02T09:00:00+01:00"}'
    )


@cache
def report_of(
    count: int = 12,
    *,
    examined_mm2: float = 12.0,
    glass_round: bool = False,
    region: Rectangle | None = None,
    name: str = "B26-00017-A-1-1.svs",
    size: tuple[int, int] = SIZE,
    mpp: tuple[float, float] = MPP,
) -> Report:
    """Mitoses at random places, two thirds of them within 1 mm of the slide's centre.

    `glass_round` puts them on fragments of 0.25 mm2 that lie 1 mm apart, so that no window holds tissue enough.
    """
    random = np.random.default_rng(count)
    near = random.normal(0.5, 0.04, (count * 2 // 3, 2))
    places = np.vstack([near, random.uniform(0, 1, (count - len(near), 2))]).clip(0, 0.999) * size
    activity = activity_of(
        count, examined_mm2, count_activity(places * mpp, _tissue(size, mpp, examined_mm2, glass_round)), mpp
    )
    detections = [
        {"id": number, "x": round(x, 2), "y": round(y, 2), "score": round(0.5 + 0.4 / number, 6), "area_um2": 60.0}
        | {"x_um": round(x * mpp[0], 3), "y_um": round(y * mpp[1], 3)}
        for number, (x, y) in enumerate(places.tolist(), start=1)
    ]
    width, height = size
    return Report.model_validate(
        {
            "analysis": {"id": f"analysis-{count}", "created_at": CREATED, "seconds": 1.0},
            "software": {"name": "mitosis-service", "version": "1.2.3"},
            "model": {"id": "model-1", "sha256": MODEL_SHA256, "threshold": 0.5, "mpp": 0.25},
            "slide": {"name": name, "sha256": SLIDE_SHA256, "vendor": "aperio", "width": width, "height": height}
            | {"mpp": mpp, "mpp_source": "slide", "objective_power": 40.0, "bounds": None},
            "region": region,
            "parameters": {"merge_um": MERGE_UM},
            "tissue": {"area_mm2": 20.0, "examined_mm2": examined_mm2},
            "detections": detections,
            **activity.model_dump(),
            "warnings": [{"code": "x20", "message": f"scanned at x20 <by {NASTY}>"}],
        }
    )


def with_detections(report: Report, count: int) -> Report:
    """The same report with so many detections on its slide, in place of its own."""
    width = report.slide.width
    places = [(number * 37 % width + 0.5, number * 91 % report.slide.height + 0.25) for number in range(count)]
    detections = [
        Detection(id=number, x=x, y=y, x_um=x * MPP[0], y_um=y * MPP[1], score=0.5 + number % 50 / 100, area_um2=60.0)
        for number, (x, y) in enumerate(places, start=1)
    ]
    counts = Counts(total=count, per_mm2=round(count / report.tissue.examined_mm2, 4))
    return report.model_copy(update={"detections": detections, "counts": counts})


def _tissue(size: tuple[int, int], mpp: tuple[float, float], examined_mm2: float, glass_round: bool) -> Sections:
    um = (size[0] * mpp[0], size[1] * mpp[1])
    if glass_round:
        corners = [(x, y) for x in range(250, int(um[0]), 1000) for y in range(250, int(um[1]), 1000)]
        return fragments(um, *((x, y, x + 500, y + 500) for x, y in corners))
    if examined_mm2 < 1:  # too little for any window
        half_um = math.sqrt(examined_mm2) * 500
        return fragments(um, (um[0] / 2 - half_um, um[1] / 2 - half_um, um[0] / 2 + half_um, um[1] / 2 + half_um))
    return all_tissue(*um)
