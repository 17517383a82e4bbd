"""DICOM: the probability map as a Parametric Map, the examined tissue as a Segmentation; both lie on the slide.

Frame. Both have a lattice of their own, coarser than level 0, in the slide's frame of reference: the origin is the
centre of the first pixel, the spacing that of the source times what one pixel is wide in level-0 px. Places are mm, by
the source's own origin, orientation and spacing. Tiles say where they lie (TILED_SPARSE): dciodvfy of 2022 takes
TILED_FULL for an error in these objects.

Map. 32-bit floats, 0 to 1, of the part of the slide that was looked at; cells are centred on what they show. Zero where
the network was not asked. Segmentation. One segment: pixels that are mostly tissue, in the region, and examinable.

Neither is changed by a review: all versions have the same objects, unless the result was given to another order.
"""

from typing import Any

import numpy as np

from service.export import codes
from service.export.dicom_instance import coded, instance_facts, named_uid, written
from service.export.dicom_source import Dataset, checked, highdicom, slide_mm
from service.order import Order
from service.probability_map import ProbabilityMap
from service.quality import QualityMap
from service.readers.dicom_images import UNFIT
from service.refusals import FormatUnavailable
from service.report import Report

MAP_SERIES, AREA_SERIES = 9004, 9005  # series numbers that no scanner gives
TILE_PX = 256


def to_parametric_map(
    probabilities: ProbabilityMap, report: Report, order: Order, source: Dataset | None, moves: int = 0
) -> bytes:
    """Write a DICOM file of the probability map. Raises FormatUnavailable, also where nothing was looked at."""
    hd = highdicom()
    image = _prepared(report, order, source)
    rows, columns = _looked_at(probabilities)
    lattice = probabilities.lattice
    stride = (lattice.stride_px * lattice.scale[0], lattice.stride_px * lattice.scale[1])
    x, y = lattice.to_level0(float(columns.start * lattice.stride_px), float(rows.start * lattice.stride_px))
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="PROBABILITY",
        lut_explanation="Probability of a mitotic figure",
        unit=coded(codes.COUNT),
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=coded(codes.PROBABILITY),
    )
    instance = _made(
        hd.pm.ParametricMap,
        [image],
        np.ascontiguousarray(probabilities.values[rows, columns]),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
        content_label="PROBABILITY",
        content_description="Probability of a mitotic figure",
        **_place(hd, image, (x + 0.5, y + 0.5), stride),  # a pixel's centre is half a px from its corner
        **instance_facts(report, image, "map", MAP_SERIES, (0, moves)),
    )
    return _finished(instance, report, image, "map")


def to_segmentation(glass: QualityMap, report: Report, order: Order, source: Dataset | None, moves: int = 0) -> bytes:
    """Write a DICOM file of the tissue that was examined. Raises FormatUnavailable, also where there is none."""
    hd = highdicom()
    image = _prepared(report, order, source)
    examined, _ = glass.examinable.examined(report.examined_region)
    if not examined.mask.any():
        raise FormatUnavailable("no tissue was examined, and a DICOM segmentation cannot be empty")
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="Examined tissue",
        segmented_property_category=coded(codes.TISSUE_CATEGORY),
        segmented_property_type=coded(codes.EXAMINED[-1]),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=report.software.name, family=coded(codes.MULTISPECTRAL), version=report.software.version
        ),
        tracking_uid=named_uid(f"examined {report.analysis.id}"),
        tracking_id="Examined tissue",
    )
    instance = _made(
        hd.seg.Segmentation,
        [image],
        examined.mask.astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        content_label="EXAMINED",
        content_description="Tissue in which mitoses were counted",
        **_place(hd, image, (examined.scale[0] / 2, examined.scale[1] / 2), examined.scale),
        **instance_facts(report, image, "area", AREA_SERIES, (0, moves)),
    )
    instance.PatientOrientation = ""  # type 2C, and unknown
    return _finished(instance, report, image, "area")


def _prepared(report: Report, order: Order, source: Dataset | None) -> Dataset:
    image = checked(report, source, order)
    image.NumberOfFrames = image.get("NumberOfFrames") or 1  # by which highdicom knows a tiled image
    return image


def _looked_at(probabilities: ProbabilityMap) -> tuple[slice, slice]:
    """Find the rows and columns of the map that hold all tiles that were done."""
    cells = [tile.write for tile in probabilities.done]
    if not cells:
        raise FormatUnavailable("nothing of this slide was looked at, and a DICOM parametric map cannot be empty")
    rows = slice(min(each.y for each in cells), max(each.bottom for each in cells))
    return rows, slice(min(each.x for each in cells), max(each.right for each in cells))


def _place(hd: Any, image: Dataset, first_px: tuple[float, float], pixel_px: tuple[float, float]) -> dict[str, Any]:
    """Say where pixels lie: the centre of the first, and how wide and high each is, in level-0 px from the corner."""
    (origin_mm,) = slide_mm(image, np.array([first_px], float))
    measures = image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    rows_mm, columns_mm = (float(each) for each in measures.PixelSpacing)
    thickness_mm = float(measures.get("SliceThickness") or 0.001)
    slide = hd.CoordinateSystemNames.SLIDE
    spacing_mm = (rows_mm * pixel_px[1], columns_mm * pixel_px[0])
    return {
        "pixel_measures": hd.PixelMeasuresSequence(pixel_spacing=spacing_mm, slice_thickness=thickness_mm),
        "plane_orientation": hd.PlaneOrientationSequence(slide, [float(each) for each in image.ImageOrientationSlide]),
        "plane_positions": [hd.PlanePositionSequence(slide, origin_mm.tolist(), (1, 1))],
        "tile_pixel_array": True,
        "tile_size": (TILE_PX, TILE_PX),
        "dimension_organization_type": "TILED_SPARSE",
    }


def _made(kind: Any, *facts: Any, **more: Any) -> Any:
    try:
        return kind(*facts, **more)
    except UNFIT as error:  # its words may be the header's
        what = f"the slide's header does not say enough for a DICOM object of its maps ({type(error).__name__})"
        raise FormatUnavailable(what) from error


def _finished(instance: Any, report: Report, image: Dataset, kind: str) -> bytes:
    uid = named_uid(f"dimensions of {kind} {report.analysis.id}")  # highdicom takes one at random
    instance.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
    for item in instance.get("DimensionIndexSequence", ()):
        item.DimensionOrganizationUID = uid
    return written(instance, report.analysis.created_at, image)
