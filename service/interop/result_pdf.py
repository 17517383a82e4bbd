"""The PDF of a version: its pictures are drawn once, in the sandbox, and kept beside the result."""

import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy import Engine

from service.activity_report import CirclePlace
from service.errors import MitosisError
from service.export.pdf import MOST_FIGURES, Pictures, counted_figures, to_pdf
from service.intake.pictures import Kind, Picture
from service.interop.result_version import ResultVersion
from service.refusals import DatabaseUnavailable
from service.store.results import keep_copy, kept_copy
from service.store.slides import find_slide
from service.store.storage import Storage

Draw = Callable[[Picture, Path], None]


def result_pdf(engine: Engine, storage: Storage, version: ResultVersion, draw: Draw) -> bytes:
    """Write the PDF of a version; without pictures where its slide is gone. Raises FormatUnavailable, NotFinished."""
    drawn = partial(_picture, engine, storage, version, draw)
    return to_pdf(version.report, version.order, version.standing, Pictures(drawn("hotspot"), drawn("gallery")))


def _picture(engine: Engine, storage: Storage, version: ResultVersion, draw: Draw, kind: Kind) -> bytes | None:
    spot, figures = version.report.mai.hotspot, counted_figures(version.report)
    if not figures or not isinstance(spot, CirclePlace):
        return None
    analysis, result = version.analysis, version.result
    name = f"{kind}-{version.standing.revision}-{result.sha256}"
    drawn = result.folder / f"{uuid.uuid4()}.partial.jpg"
    try:
        if (content := kept_copy(result.folder, name, "jpg")) is None:
            stored = find_slide(engine, analysis.tenant, analysis.slide_id)
            shown = figures if kind == "hotspot" else figures[:MOST_FIGURES]
            picture = Picture(
                kind,
                location=stored.location(storage),
                name=stored.name,
                mpp=analysis.request.get("mpp"),
                spot=spot.model_dump(),
                points=[(each.id, each.x, each.y) for each in shown],
            )
            draw(picture, drawn)
            content = drawn.read_bytes()
            keep_copy(result.folder, name, "jpg", content)
        return content
    except DatabaseUnavailable:
        raise
    except (MitosisError, OSError):  # the slide was deleted, or its storage is away: the words are worth having alone
        return None
    finally:
        drawn.unlink(missing_ok=True)
