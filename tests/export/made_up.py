"""Reports that are made up, figure by figure."""

from typing import Any

from service.activity_report import CirclePlace, RectanglePlace
from service.report import Rectangle, Report

CIRCLE = CirclePlace(x=1000.0, y=800.0, radius_um=100.0, tissue_fraction=1.0)
RECTANGLE = RectanglePlace(x=1000.0, y=800.0, width_um=50.0, height_um=20.0, tissue_fraction=1.0)
MPP = (0.25, 0.5)


def make_report(
    *,
    count: int = 3,
    hotspot: CirclePlace | RectanglePlace | None = CIRCLE,
    region: Rectangle | None = None,
    bounds: Rectangle | None = None,
) -> Report:
    detections = [
        {"id": each, "x": 1000.25 + each, "y": 790.5, "x_um": 250.0, "y_um": 395.0, "score": 0.9, "area_um2": 60.5}
        for each in range(1, count + 1)
    ]
    common = {"table_version": "1", "interval": (0.6, 8.8), "area_mm2": 1.59, "area_sufficient": True}
    mai = {**common, "definition": "mai_baak", "count": count, "high_risk": False, "near_cutoff": False}
    slide = {"name": "a.svs", "sha256": "0" * 64, "vendor": "mirax", "width": 5000, "height": 4000, "mpp": MPP}
    return Report.model_validate(
        {
            "analysis": {"id": "7f0c", "created_at": "2026-01-01T00:00:00Z", "seconds": 1.0},
            "software": {},
            "model": {"id": "m", "sha256": "1" * 64, "threshold": 0.5, "mpp": 0.25},
            "slide": {**slide, "mpp_source": "slide", "objective_power": None, "bounds": bounds},
            "region": region,
            "parameters": {},
            "tissue": {"area_mm2": 2.0, "examined_mm2": 2.0},
            "detections": detections,
            "counts": {"total": count, "per_mm2": count / 2},
            "mai": {**mai, "hotspot": hotspot, "alternatives": []},
            "scores": [],
            "warnings": [],
        }
    )


def reviewed_report() -> Report:
    """Three figures of the machine: undecided, accepted, rejected; and one that a person added."""
    report = make_report(region=Rectangle(x=700, y=600, width=1000, height=900))
    by: dict[str, Any] = {"reviewer": "Dr. A", "at": "2026-01-02T00:00:00Z"}
    decided = [{}, by | {"decision": "accepted"}, by | {"decision": "rejected", "reason": "pyknosis"}]
    found: list[dict[str, Any]] = [
        dict(each) | {"origin": "machine"} | own for each, own in zip(report.detections, decided, strict=True)
    ]
    added = {"id": 4, "x": 900.0, "y": 700.0, "x_um": 225.0, "y_um": 350.0, "score": None, "area_um2": None}
    found.append(added | {"origin": "person", "decision": "accepted"} | by)
    review = {"revision": 3, "status": "final", "signed": None, "detections": found}
    review |= {"counts": report.counts, "mai": report.mai, "scores": []}
    return Report.model_validate(report.model_dump() | {"review": review})
