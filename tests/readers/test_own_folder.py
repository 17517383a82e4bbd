"""A slide of several files names files of its own folder, and no others: by names, by links, whatever it is called."""

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

from service.errors import ReferenceForbidden
from service.readers.own_folder import own_files
from service.slide import Box, open_slide
from tests.slides import draw_tissue, write_vms

PIXELS = draw_tissue(512, 512)


def test_a_slide_of_several_files_opens_and_all_of_them_are_hashed(tmp_path: Path) -> None:
    path = write_vms(tmp_path / "a.vms", pixels=PIXELS)
    with open_slide(path) as slide:
        assert np.abs(slide.read(Box(0, 0, 512, 512)).astype(int) - PIXELS).mean() < 6
        assert [Path(each).name for each in slide.files] == ["a.vms", "pixels.jpg", "map.jpg"]
        before = slide.sha256
    write_vms(path, pixels=PIXELS[::-1])
    with open_slide(path) as slide:
        assert slide.sha256 != before


@pytest.mark.parametrize("name", ["a.vms", "a.VMU", "a.dat", "a"])
@pytest.mark.parametrize("folder", ["../others", "{above}/others", "sub"])
def test_an_index_that_names_a_file_elsewhere_is_refused_by_what_it_is(tmp_path: Path, name: str, folder: str) -> None:
    own = tmp_path / "own"
    for each in (own, own / "sub", tmp_path / "others"):
        each.mkdir()
    write_vms(own / name, folder.format(above=tmp_path))
    with pytest.raises(ReferenceForbidden, match=rf"^{name} names a file outside its folder"):
        open_slide(own / name)


@pytest.mark.parametrize(
    "line",
    ["FILE_0=..", "IndexFile = a/b", " \tMapFile=C:\\b", "ImageFile(0, 1) = ../b", "MacroImage=/b", "FILE_1=a\0b"],
)
def test_every_way_to_name_a_file_is_seen(tmp_path: Path, line: str) -> None:
    (tmp_path / "a").write_text(f"[x]\n{line}\r\n")
    with pytest.raises(ReferenceForbidden):
        own_files(tmp_path / "a", "hamamatsu")


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_followed(tmp_path: Path) -> None:
    own, others = tmp_path / "own", tmp_path / "others"
    own.mkdir()
    others.mkdir()
    path = write_vms(own / "a.vms", pixels=PIXELS)
    (own / "pixels.jpg").rename(own / "moved.jpg")
    (own / "pixels.jpg").symlink_to("moved.jpg")
    with open_slide(path) as slide:
        assert slide.width == 512
    (own / "moved.jpg").rename(others / "moved.jpg")
    (own / "pixels.jpg").unlink()
    (own / "pixels.jpg").symlink_to("../others/moved.jpg")
    with pytest.raises(ReferenceForbidden, match=r"^a\.vms: pixels\.jpg is a link that leads out"):
        open_slide(path)


@pytest.mark.parametrize("linked", ["scan", "scan/Data0000.dat", "scan/Slidedat.ini"])
def test_a_mirax_slide_with_a_link_out_of_its_folder_is_refused(tmp_path: Path, linked: str) -> None:
    own, others = tmp_path / "own", tmp_path / "others"
    (own / "scan").mkdir(parents=True)
    others.mkdir()
    (own / "scan.mrxs").write_bytes(b"x")
    (own / "scan" / "Data0000.dat").write_bytes(b"x")
    (own / "scan" / "Slidedat.ini").write_text("[DATAFILE]\nFILE_COUNT = 1\nFILE_0 = Data0000.dat\n")
    assert len(own_files(own / "scan.mrxs", "mirax")) == 3
    (own / linked).rename(others / "moved")
    (own / linked).symlink_to(others / "moved")
    with pytest.raises(ReferenceForbidden, match=re.escape("leads out of the slide's folder")):
        own_files(own / "scan.mrxs", "mirax")


def test_a_dicom_folder_with_a_link_out_of_it_is_refused(shared: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for file in (shared / "data/slides/dicom-boxes").iterdir():
        (own / file.name).write_bytes(file.read_bytes())
    with open_slide(own) as slide:
        assert slide.vendor == "dicom"
    moved = max(own.iterdir(), key=lambda file: file.stat().st_size)
    moved.rename(tmp_path / "moved.dcm")
    moved.symlink_to(tmp_path / "moved.dcm")
    with pytest.raises(ReferenceForbidden, match=re.escape("leads out of the slide's folder")):
        open_slide(own)


@pytest.mark.filterwarnings("ignore:.*reading array from closed file")
@pytest.mark.parametrize("tags", ["TiffData UUID", "PlaneTiffData UUID", "TiffData OtherUUID"])
def test_what_tifffile_would_open_beside_an_ome_tiff_is_not_opened(tmp_path: Path, tags: str) -> None:
    """Its parser goes by how tags end, and so finds what ours does not: its series are never asked for."""
    data, uuid = tags.split()
    (tmp_path / "own").mkdir()
    path, other = tmp_path / "own" / "a.ome.tif", tmp_path / "other.ome.tif"
    options = {"tile": (256, 256), "photometric": "rgb", "metadata": None}
    tifffile.imwrite(other, PIXELS[::-1], **options, description=ome('UUID="urn:uuid:1"', '<TiffData IFD="0"/>'))
    named = f'<{data} IFD="0"><{uuid} FileName="../other.ome.tif">urn:uuid:1</{uuid}></{data}>'
    tifffile.imwrite(path, PIXELS, **options, description=ome('UUID="urn:uuid:0"', named))
    with tifffile.TiffFile(path) as tiff:
        np.testing.assert_array_equal(tiff.series[0].asarray(), PIXELS[::-1])
    try:
        with open_slide(path, mpp=0.25) as slide:
            np.testing.assert_array_equal(slide.read(Box(0, 0, 512, 512)), PIXELS)
    except ReferenceForbidden:
        assert tags == "TiffData UUID"


def ome(uuid: str, data: str) -> str:
    size = 'DimensionOrder="XYCZT" Type="uint8" SizeX="512" SizeY="512" SizeC="3" SizeZ="1" SizeT="1"'
    return f'<OME {uuid}><Image><Pixels {size}><Channel SamplesPerPixel="3"/>{data}</Pixels></Image></OME>'
