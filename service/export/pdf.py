"""PDF for people: one to three pages that a laboratory files beside the case.

Set by Typst, as tagged PDF that a screen reader reads (PDF/UA-1, but where a name has letters that no font here has).
What limits a result stands before its pictures. Words come as data: nothing in them is taken for markup.
"""

import json
import math
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from service.activity_report import CirclePlace, GrownMai, GrownScore, Mai, Score, window_words
from service.export.findings import TOO_LITTLE_TISSUE, UNCONFIRMED, limits
from service.extras import needs
from service.mitotic_definitions import MAI_BAAK, SCORE_DEFINITIONS
from service.order import Confirmation, Order, ResultStatus, Standing
from service.refusals import FormatUnavailable
from service.report import Detection, Report

MOST_FIGURES = 48  # in the gallery
TEMPLATE = "report.typ"
STANDING: dict[ResultStatus, str] = {"preliminary": "Preliminary", "final": "Final", "amended": "Amended"}


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of a result, as JPEG; None where there is nothing to show, or no slide any more."""

    hot_spot: bytes | None = None
    gallery: bytes | None = None


def to_pdf(report: Report, order: Order, standing: Standing, pictures: Pictures) -> bytes:
    """Write a PDF; the same arguments give the same bytes. Raises FormatUnavailable."""
    with needs("interop"):
        import typst
    content = _content(report, order, standing)
    issued = int(standing.since(report.analysis.created_at).timestamp())
    with tempfile.TemporaryDirectory() as folder:
        main = Path(folder, TEMPLATE)
        main.write_bytes(resources.files("service.export").joinpath(TEMPLATE).read_bytes())
        for name, picture in (("hot_spot", pictures.hot_spot), ("gallery", pictures.gallery)):
            if picture is None:
                del content[name]
            else:
                main.with_name(f"{name}.jpg").write_bytes(picture)
        main.with_name("content.json").write_text(json.dumps(content))
        try:
            with suppress(typst.TypstError):
                return bytes(typst.compile(main, pdf_standards=["ua-1"], timestamp=issued))
            return bytes(typst.compile(main, timestamp=issued))
        except typst.TypstError as error:  # it quotes the text
            raise FormatUnavailable(f"the result makes no PDF ({type(error).__name__})") from error


def counted_figures(report: Report) -> list[Detection]:
    """List the figures in the hot-spot, or all where there is none, the most certain first; people's come first."""
    spot = report.mai.hotspot
    return sorted(
        (each for each in report.detections if not isinstance(spot, CirclePlace) or _inside(each, spot, report)),
        key=lambda each: (-(1.0 if each.score is None else each.score), each.id),
    )


def _inside(figure: Detection, spot: CirclePlace, report: Report) -> bool:
    mpp_x, mpp_y = report.slide.mpp
    away_um = math.hypot((figure.x - spot.x) * mpp_x, (figure.y - spot.y) * mpp_y)
    return away_um <= spot.radius_um + max(mpp_x, mpp_y)  # places are rounded to hundredths of a pixel


def _content(report: Report, order: Order, standing: Standing) -> dict[str, Any]:
    """Put into words all that the template shows."""
    figures = counted_figures(report)
    more = len(figures) - MOST_FIGURES
    return {
        "standing": STANDING[standing.status],
        "vouched": _vouched(standing.confirmed),
        "order": _known(_about_order(order)),
        "index": _in_words(report.mai),
        "total": f"{report.counts.total} mitoses in {report.tissue.examined_mm2:.2f} mm² of examined tissue",
        "warnings": limits(report, order),
        "hot_spot": f"The most active area, ringed, with its {report.mai.count} mitoses.",
        "gallery": "The mitoses in it, the most certain first, each 64 µm wide"
        + (f"; {more} more are not shown." if more > 0 else "."),
        "rows": [_row(report.mai), *map(_row, report.scores)],
        "slide": _known(_about_slide(report)),
        "footer": f"{order.accession_number or report.slide.name} · analysis {report.analysis.id}",
    }


def _vouched(confirmed: Confirmation | None) -> str:
    if confirmed is None:
        return UNCONFIRMED
    of = f", {confirmed.organization}" if confirmed.organization else ""
    return f"Signed by {confirmed.name}{of} on {confirmed.at:%Y-%m-%d %H:%M %Z}."


def _about_order(order: Order) -> dict[str, str | None]:
    issuer = f" ({order.patient_id_issuer})" if order.patient_id_issuer else ""
    return {
        "Patient": order.patient_name,
        "Patient number": order.patient_id and f"{order.patient_id}{issuer}",
        "Born": order.patient_birth_date,
        "Sex": order.patient_sex,
        "Accession": order.accession_number,
        "Slide label": order.container_id,
        "Block": order.block,
        "Stain": order.stain,
        "Ordered by": order.ordering_provider,
        "Order number": order.placer_order_number,
    }


def _about_slide(report: Report) -> dict[str, str | None]:
    slide, model = report.slide, report.model
    return {
        "Slide file": slide.name,
        "Pixels": f"{slide.width} x {slide.height}, {slide.mpp[0]:.4g} x {slide.mpp[1]:.4g} µm each",
        "Slide checksum": slide.sha256,
        "Model": f"{model.id}, threshold {model.threshold:.3g}",
        "Model checksum": model.sha256,
        "Software": f"{report.software.name} {report.software.version}",
        "Computed": f"{report.analysis.created_at:%Y-%m-%d %H:%M %Z}",
    }


def _known(facts: dict[str, str | None]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in facts.items() if value]


def _in_words(mai: Mai) -> str:
    if mai.area_sufficient:
        return _class_in_words(mai)
    short, grown = f"No class: {TOO_LITTLE_TISSUE}", mai.grown
    return f"{short}. Grown until it holds as much, {window_words(grown)}: {_class_in_words(grown)}" if grown else short


def _class_in_words(found: Mai | GrownMai) -> str:
    near = ", near the cut-off" if found.near_cutoff else ""
    return f"{MAI_BAAK.classes[int(bool(found.high_risk))]}{near}"


def _row(found: Mai | Score) -> Sequence[str]:
    """Give definition, count, interval, window, its tissue and class."""
    known = {(each.id, each.table_version): each for each in (MAI_BAAK, *SCORE_DEFINITIONS)}
    definition = known.get((found.definition, found.table_version))
    title = definition.title if definition else found.definition
    low, high = found.interval
    classed, grown = _classed(found), found.grown
    if not found.area_sufficient:
        classed = "too little tissue"
        if grown:
            classed += f"; grown to {grown.area_mm2:.2f} mm²: {grown.count}, {_classed(grown)}"
    tissue_mm2 = found.hotspot.tissue_fraction * found.area_mm2 if found.hotspot else 0.0
    return (
        f"{title} ({found.table_version})",
        str(found.count),
        f"{low:.1f} to {high:.1f}",
        f"{found.area_mm2:.2f}",
        f"{tissue_mm2:.2f}",
        classed,
    )


def _classed(found: Mai | GrownMai | Score | GrownScore) -> str:
    if isinstance(found, Mai | GrownMai):
        return "high risk" if found.high_risk else "low risk"
    return "none" if found.score is None else f"score {found.score}"
