"""Where a slide lies: no link below a root is followed, and what was accepted is what is read, or it is an error."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.errors import FileMissing, SlideChanged
from service.intake.deep_zoom import ShownSlides
from service.location import Location, ask_held
from service.slide import Box, open_slide
from tests.slides import draw_tissue, write_pyramid

PIXELS = draw_tissue(300, 200)
WHOLE = Box(0, 0, 300, 200)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "root" / "case").mkdir(parents=True)
    return write_pyramid(tmp_path / "root" / "case" / "slide.tif", [PIXELS])


def accepted(path: Path) -> Location:
    """The location of a slide as a row of the database has it."""
    location = Location(str(path), str(path.parents[1]))
    with open_slide(location) as slide:
        return replace(location, sha256=slide.sha256, fingerprint=slide.fingerprint)


def other(path: Path) -> bytes:
    """The content of another slide of the same size, which differs in its middle only."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    return bytes(content)


@pytest.mark.parametrize("swapped", ["case/slide.tif", "case"])
def test_a_link_in_the_place_of_the_file_or_of_a_folder_is_not_followed(path: Path, swapped: str) -> None:
    location = accepted(path)
    (path.parents[1] / swapped).rename(path.parents[2] / "moved")
    (path.parents[1] / swapped).symlink_to(path.parents[2] / "moved")
    assert path.exists()
    with pytest.raises(SlideChanged, match=r"slide\.tif: a link"):
        open_slide(location)


def test_a_root_may_be_a_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "archive").symlink_to(path.parents[1])
    with open_slide(Location(str(tmp_path / "archive" / "case" / "slide.tif"), str(tmp_path / "archive"))) as slide:
        assert slide.width == 300


@pytest.mark.parametrize("wrong", ["../slide.tif", "case/../../slide.tif", "", "."])
def test_what_does_not_lie_below_the_root_is_not_opened(path: Path, wrong: str) -> None:
    with pytest.raises(SlideChanged):
        open_slide(Location(f"{path.parents[1]}/{wrong}", str(path.parents[1])))


def test_a_file_that_is_gone_is_missing_and_no_message_says_where_it_was(path: Path) -> None:
    location = accepted(path)
    path.write_bytes(b"II*\0")
    with pytest.raises(Exception, match=r"^slide\.tif") as raised:
        open_slide(location)
    assert "/" not in str(raised.value)
    path.unlink()
    with pytest.raises(FileMissing, match=r"^slide\.tif: No such file"):
        open_slide(location)


def test_a_slide_stays_the_one_that_was_judged_whatever_becomes_of_the_folders_above(path: Path) -> None:
    with open_slide(accepted(path)) as slide:
        path.parent.rename(path.parents[1] / "moved")
        path.parent.mkdir()
        path.write_bytes(b"another")
        np.testing.assert_array_equal(slide.read(WHOLE), PIXELS)
        assert slide.is_unchanged()


def test_other_content_is_noticed_though_size_and_times_are_the_same(path: Path) -> None:
    location, before = accepted(path), path.stat()
    path.write_bytes(other(path))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(SlideChanged, match=r"slide\.tif is not the file that was accepted"):
        open_slide(location)


def test_the_same_content_is_accepted_whatever_its_times_are(path: Path) -> None:
    location = accepted(path)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    for known in (location, replace(location, fingerprint="")):
        with open_slide(known) as slide:
            assert slide.sha256 == location.sha256


def test_an_untouched_slide_is_not_hashed_unless_it_is_to_be_compared_in_full(path: Path) -> None:
    location = replace(accepted(path), sha256="0" * 64)
    with open_slide(location) as slide:
        assert slide.sha256 == "0" * 64
    with pytest.raises(SlideChanged):
        open_slide(replace(location, fingerprint=""))


@pytest.mark.parametrize("how", ["written to", "replaced", "replaced and put back", "deleted"])
def test_what_happens_to_a_slide_while_it_is_read_is_noticed(path: Path, how: str) -> None:
    with open_slide(accepted(path)) as slide:
        slide.require_unchanged()
        if how == "written to":
            path.write_bytes(other(path))
        else:
            path.rename(path.with_name("kept"))
        if how.startswith("replaced"):
            path.write_bytes(other(path.with_name("kept")))
        if how == "replaced and put back":
            path.with_name("kept").replace(path)
        with pytest.raises(SlideChanged):
            slide.require_unchanged()


def test_an_open_slide_of_the_viewer_is_judged_again_at_each_tile(path: Path) -> None:
    location, shown = accepted(path), ShownSlides()
    tile = shown.cut(location, WHOLE, 1, name="slide.tif")
    os.utime(path)
    assert shown.cut(location, WHOLE, 1, name="slide.tif") == tile
    path.write_bytes(other(path))
    with pytest.raises(SlideChanged):
        shown.cut(location, WHOLE, 1, name="slide.tif")
    shown.close()


def test_files_are_read_below_a_root_without_a_reader(path: Path) -> None:
    assert ask_held(accepted(path), lambda held: held.read_bytes()) == path.read_bytes()
