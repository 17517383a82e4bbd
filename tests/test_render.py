"""Pictures of a report."""

from pathlib import Path

import numpy as np
from PIL import Image

from service.intake.pictures import Picture, draw
from service.location import Location
from service.quality import QualityMap
from service.render import TISSUE, overlay
from service.slide import open_slide
from service.tissue import WHOLE, TissueMask
from tests.export.hospital import report_of

GLASS = (800, 600)  # px, of a slide without tissue


def outlined(picture: Image.Image) -> np.ndarray:
    """Where the tissue's outline is drawn, (h, w) bool."""
    return (np.asarray(picture) == TISSUE).all(-1)


def test_the_overlay_outlines_the_tissue_that_the_analysis_found(tmp_path: Path) -> None:
    Image.new("RGB", GLASS, (243, 243, 243)).save(tmp_path / "glass.png")
    mask = np.zeros((19, 25), bool)
    mask[5:10, 5:15] = True  # in px of 32 level-0 px
    tissue = TissueMask(mask * np.uint8(WHOLE), (32.0, 32.0), (0.25, 0.25))
    report = report_of(0, size=GLASS, mpp=(0.25, 0.25))
    with open_slide(tmp_path / "glass.png", mpp=0.25) as slide:
        rows, columns = np.nonzero(outlined(overlay(slide, report, tissue, GLASS[0])))
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (160, 320, 160, 480)
    (tmp_path / "report.json").write_text(report.to_json())
    QualityMap(tissue, np.zeros_like(tissue.coverage)).save(tmp_path / "tissue.npz")
    location = Location(str(tmp_path / "glass.png"), sha256="0" * 64)
    facts = {"name": "glass.png", "mpp": 0.25, "report": str(tmp_path / "report.json")}
    for saved, drawn in ((str(tmp_path / "tissue.npz"), True), ("", False)):
        draw(Picture("overlay", location, **facts, tissue=saved), tmp_path / "out.png")
        with Image.open(tmp_path / "out.png") as picture:
            assert outlined(picture.convert("RGB")).any() == drawn
