"""Frames of DICOM that contradict their header: OpenSlide shows one of a place, or false colours, or breaks off."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from service.errors import SlideDamaged, SlideUnsupported
from service.slide import Box, open_slide
from tests.dicom_slide import BASE, TILE_PX, of, write_dicom_slide
from tests.slides import draw_tissue

PIXELS = draw_tissue(700, 300)  # three columns, two rows
BLACK = bytes(3 * TILE_PX**2)
Places = list[tuple[int, int]]


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A file in tiles that lie row by row."""
    return write_dicom_slide(tmp_path / "slide", PIXELS) / f"{BASE}.dcm"


def altered(path: Path, alter: Callable[[Dataset], Any]) -> Path:
    instance = pydicom.dcmread(path)
    alter(instance)
    instance.save_as(path)
    return path


def frames_of(instance: Dataset) -> list[bytes]:
    return [instance.PixelData[start : start + len(BLACK)] for start in range(0, len(instance.PixelData), len(BLACK))]


def sparse(alter: Callable[[list[bytes], Places], tuple[list[bytes], Places]]) -> Callable[[Dataset], None]:
    """Frames that each say where they lie."""

    def place(instance: Dataset) -> None:
        places = [(x, y) for y in (1, 1 + TILE_PX) for x in (1, 1 + TILE_PX, 1 + 2 * TILE_PX)]
        frames, places = alter(frames_of(instance), places)
        instance.PixelData, instance.NumberOfFrames = b"".join(frames), len(frames)
        instance.DimensionOrganizationType = "TILED_SPARSE"
        instance.PerFrameFunctionalGroupsSequence = [
            of(
                PlanePositionSlideSequence=[
                    of(ColumnPositionInTotalImagePixelMatrix=x, RowPositionInTotalImagePixelMatrix=y)
                ]
            )
            for x, y in places
        ]

    return place


def test_frames_in_any_order_lie_where_they_say(slide: Path) -> None:
    altered(slide, sparse(lambda frames, places: (frames[::-1], places[::-1])))
    with open_slide(slide) as opened:
        np.testing.assert_array_equal(opened.read(Box(0, 0, 700, 300)), PIXELS)


def test_a_frame_that_is_left_out_is_glass(slide: Path) -> None:
    altered(slide, sparse(lambda frames, places: (frames[1:], places[1:])))
    with open_slide(slide) as opened:
        assert (opened.read(Box(0, 0, TILE_PX, TILE_PX)) == 255).all()
        np.testing.assert_array_equal(opened.read(Box(TILE_PX, 0, 444, 300)), PIXELS[:, TILE_PX:])


MISPLACED: dict[str, Any] = {
    "several frames at one place": lambda frames, places: ([*frames, BLACK], [*places, places[0]]),
    "frames beyond its size": lambda frames, places: (frames, [(x + TILE_PX, y) for x, y in places]),
    "as many frames as it says": lambda frames, places: (frames, places[:-1]),
    "TILED_SPARSE, and does not say where": lambda frames, _: (frames, []),
}


@pytest.mark.parametrize("what", MISPLACED)
def test_places_that_cannot_be_are_damage(slide: Path, what: str) -> None:
    altered(slide, sparse(MISPLACED[what]))
    with pytest.raises(SlideDamaged, match=what):
        open_slide(slide)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("TotalPixelMatrixColumns", 500, "6 frames where its size needs 4"),
        ("TotalPixelMatrixRows", 700, "6 frames where its size needs 9"),
        ("NumberOfFrames", 2**31 - 1, "2147483647 frames where its size needs 6"),
        ("NumberOfFrames", -1, "its size needs 6"),
        ("TotalPixelMatrixColumns", [700, 1], "its size needs"),
        ("DimensionOrganizationType", "3D", "it is 3D"),
        ("DimensionOrganizationType", "TILED_SPARSE", "does not say where"),
    ],
)
def test_frames_that_do_not_fill_the_size_are_damage(slide: Path, attribute: str, value: Any, message: str) -> None:
    altered(slide, lambda instance: setattr(instance, attribute, value))
    with pytest.raises(SlideDamaged, match=message):
        open_slide(slide)


def test_several_optical_paths_are_unsupported(slide: Path) -> None:
    def twice(instance: Dataset) -> None:
        instance.PixelData, instance.NumberOfFrames = BLACK * 6 + instance.PixelData, 12
        instance.NumberOfOpticalPaths = 2

    with pytest.raises(SlideUnsupported, match="of several optical paths"):
        open_slide(altered(slide, twice))


def write_parts(path: Path, **changes: Any) -> Path:
    """The two rows of a slide in two files, one after the other."""
    whole = pydicom.dcmread(path)
    frames = frames_of(whole)
    path.unlink()
    for number in (0, 1):
        part = pydicom.dcmread(io.BytesIO(_saved(whole)))
        part.SOPInstanceUID = part.file_meta.MediaStorageSOPInstanceUID = f"{BASE}.{number + 1}"
        part.SOPInstanceUIDOfConcatenationSource, part.ConcatenationUID = BASE, f"{BASE}.9"
        part.InConcatenationNumber, part.InConcatenationTotalNumber = number + 1, 2
        part.ConcatenationFrameOffsetNumber, part.NumberOfFrames = 3 * number, 3
        part.PixelData = b"".join(frames[3 * number : 3 * number + 3])
        for keyword, value in changes.items():
            setattr(part, keyword, value)
        part.save_as(path.with_name(f"{number}.dcm"))
    return path.parent


def _saved(instance: Dataset) -> bytes:
    instance.save_as(content := io.BytesIO())
    return content.getvalue()


def test_parts_of_a_concatenation_are_one_image(slide: Path) -> None:
    with open_slide(write_parts(slide)) as opened:
        np.testing.assert_array_equal(opened.read(Box(0, 0, 700, 300)), PIXELS)


def test_parts_that_say_the_same_place_or_lack_one_are_damage(slide: Path, tmp_path: Path) -> None:
    with pytest.raises(SlideDamaged, match="do not follow each other"):
        open_slide(write_parts(slide, ConcatenationFrameOffsetNumber=0))
    folder = write_parts(write_dicom_slide(tmp_path / "other", PIXELS) / f"{BASE}.dcm")
    (folder / "1.dcm").unlink()
    with pytest.raises(SlideDamaged, match="3 frames where its size needs 6"):
        open_slide(folder)


@pytest.mark.parametrize(("subsampling", "said"), [(0, "RGB"), (1, "YBR_FULL_422"), (1, "RGB")])
def test_jpeg_that_cannot_be_rgb_is_not_shown_as_rgb(slide: Path, subsampling: int, said: str) -> None:
    def compress(instance: Dataset) -> None:
        streams = [io.BytesIO() for _ in frames_of(instance)]
        for stream, frame in zip(streams, frames_of(instance), strict=True):
            image = Image.frombytes("RGB", (TILE_PX, TILE_PX), frame)
            image.save(stream, "JPEG", quality=95, subsampling=subsampling, keep_rgb=subsampling == 0)
        instance.PixelData = encapsulate([stream.getvalue() for stream in streams])
        instance["PixelData"].VR = "OB"
        instance.file_meta.TransferSyntaxUID, instance.PhotometricInterpretation = JPEGBaseline8Bit, said

    altered(slide, compress)
    if subsampling and said == "RGB":
        with pytest.raises(SlideDamaged, match="not RGB, as its header says"):
            open_slide(slide)
        return
    with open_slide(slide) as opened:
        shown = opened.read(Box(0, 0, 700, 300)).astype(int)
    assert np.abs(shown - PIXELS).mean() < 8
