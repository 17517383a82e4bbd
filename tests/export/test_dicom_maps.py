"""DICOM of the maps: read back by highdicom, checked by dciodvfy; pixels lie where the report has its figures (um)."""

from functools import cache
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom import Dataset

from service.export.dicom_maps import to_parametric_map, to_segmentation
from service.order import Order
from service.probability_map import ProbabilityMap
from service.quality import Hindrance, QualityMap
from service.refusals import FormatUnavailable
from service.report import Detection, Rectangle, Report
from service.tiling import Lattice, cover
from service.tissue import TissueMask
from tests.export.dicom_objects import ORIENTATION, ORIGIN_MM, SPACING_MM, errors_in, slide_instance
from tests.export.hospital import MPP, ORDER, SIZE, report_of

LATTICE = Lattice.of(*SIZE, (1.0, 0.5), 16, (2.0, -1.0))  # model px of 0.25 um; the network answers beside what it sees
PEAKS = ((230, 340), (400, 640), (512, 700))  # rows and columns of cells


@cache
def probabilities() -> ProbabilityMap:
    """Three figures in the part of a slide that was looked at."""
    found = ProbabilityMap.empty(LATTICE)
    for row, column in PEAKS:
        found.values[row, column] = 0.5 + row / 1024
    found.done = {each for each in cover(LATTICE) if 190 <= each.write.y < 600 and 300 <= each.write.x < 800}
    return found


def report() -> Report:
    """The same figures, where the report has them."""
    rows, columns = np.array(PEAKS, float).T
    x, y = LATTICE.to_level0(columns * 16, rows * 16)
    figures = [
        Detection(id=number, x=px, y=py, x_um=px * MPP[0], y_um=py * MPP[1], score=0.9, area_um2=60.0)
        for number, (px, py) in enumerate(zip(x.tolist(), y.tolist(), strict=True), start=1)
    ]
    return report_of().model_copy(update={"detections": figures})


def glass() -> QualityMap:
    """A slide that is all tissue but for a border, with a pen over its left part; a pixel is 160 x 80 level-0 px."""
    coverage = np.full((200, 125), 255, np.uint8)
    coverage[:10] = 100
    kinds = np.zeros_like(coverage)
    kinds[:, :30] = Hindrance.PEN
    return QualityMap(TissueMask(coverage, (160.0, 80.0), MPP), kinds)


def slide_um(image: Dataset, row: int, column: int) -> npt.NDArray[np.float64]:
    """Where the centre of a pixel lies by highdicom, in um from the corner of level 0 along its rows and columns."""
    to_mm = hd.spatial.PixelToReferenceTransformer.for_image(image, for_total_pixel_matrix=True)
    beyond_mm = to_mm(np.array([[column, row]]))[0, :2] - ORIGIN_MM
    along = np.array(ORIENTATION, float).reshape(2, 3)[:, :2]
    centre_um: npt.NDArray[np.float64] = 1000 * (along @ beyond_mm + np.array(SPACING_MM) / 2)
    return centre_um


def test_the_maps_peaks_lie_where_the_report_has_the_figures() -> None:
    image = hd.imread(BytesIO(to_parametric_map(probabilities(), report(), ORDER, slide_instance())))
    values = image.get_total_pixel_matrix()
    assert "FloatPixelData" in image
    found = [(int(row), int(column)) for row, column in np.argwhere(values > 0)]
    assert [values[place] for place in found] == [probabilities().values[place] for place in PEAKS]
    for place, figure in zip(found, report().detections, strict=True):
        np.testing.assert_allclose(slide_um(image, *place), (figure.x_um, figure.y_um), atol=0.26)  # half a level-0 px
    spacing_mm = image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    assert [float(each) for each in spacing_mm] == pytest.approx([0.004, 0.004])


def test_the_segmentation_is_the_tissue_that_was_examined() -> None:
    within = Rectangle(x=0, y=0, width=SIZE[0], height=SIZE[1] // 2)
    content = to_segmentation(glass(), report_of(region=within), ORDER, slide_instance())
    image = hd.seg.segread(BytesIO(content))
    mask = image.get_total_pixel_matrix(segment_numbers=[1])[..., 0]
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 99, 30, 124)
    assert mask.sum() == 90 * 95
    np.testing.assert_allclose(slide_um(image, 10, 30), (30.5 * 160 * MPP[0], 10.5 * 80 * MPP[1]), atol=0.01)
    [segment] = image.SegmentSequence
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "examined-area"


def both(source: Dataset) -> list[bytes]:
    told = (report(), ORDER, source)
    return [to_parametric_map(probabilities(), *told), to_segmentation(glass(), *told)]


def test_both_are_valid_and_lie_beside_the_slide(tmp_path: Path) -> None:
    source = slide_instance()
    contents = both(source)
    for content in contents:
        assert errors_in(content, tmp_path) == []
        found = pydicom.dcmread(BytesIO(content))
        for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName", "ContainerIdentifier"):
            assert found[keyword].value == source[keyword].value, keyword
        assert found.ImageOrientationSlide == ORIENTATION
    assert contents == both(source)
    moved = to_segmentation(glass(), report(), ORDER, source, moves=1)
    assert pydicom.dcmread(BytesIO(moved)).SOPInstanceUID != pydicom.dcmread(BytesIO(contents[1])).SOPInstanceUID


def test_what_cannot_be_said_is_refused() -> None:
    source = slide_instance()
    with pytest.raises(FormatUnavailable, match="nothing of this slide was looked at"):
        to_parametric_map(ProbabilityMap.empty(LATTICE), report(), ORDER, source)
    bare = glass()
    bare.kinds[:] = Hindrance.PEN
    with pytest.raises(FormatUnavailable, match="no tissue was examined"):
        to_segmentation(bare, report(), ORDER, source)
    with pytest.raises(FormatUnavailable, match="no DICOM slide"):
        to_segmentation(glass(), report(), ORDER, None)
    with pytest.raises(FormatUnavailable, match="patient_id"):
        to_parametric_map(probabilities(), report(), Order(patient_id="another"), source)
