"""DICOM as media bring it: folders, DICOMDIR, reports and labels beside the slide; what is not read, by its name."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEGLSLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
)

from service.errors import ArchiveUnsafe, NotASlide, SlideAmbiguous, SlideDamaged, SlideUnsupported
from service.intake.archive import slide_in, unpack
from service.readers.levels import Rgb
from service.readers.slide_folders import slides_in
from service.slide import Box, open_slide
from tests.dicom_slide import BASE, LABEL, SERIES, write_dicom_slide
from tests.export.dicom_objects import structured_report
from tests.slides import draw_tissue, halved, write_svs
from tests.zips import zip_folder

PIXELS = draw_tissue(400, 300)
SECOND = "1.2.3.90"


def shown(path: Path) -> Rgb:
    with open_slide(path) as slide:
        return slide.read(Box(0, 0, slide.width, slide.height))


def changed(path: Path, **attributes: Any) -> Path:
    """The file with other attributes; its transfer syntax too."""
    instance = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        setattr(instance.file_meta if keyword == "TransferSyntaxUID" else instance, keyword, value)
    if "SOPClassUID" in attributes:
        instance.file_meta.MediaStorageSOPClassUID = attributes["SOPClassUID"]
    instance.save_as(path)
    return path


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A slide of two levels and a label."""
    folder = write_dicom_slide(tmp_path / "slide", PIXELS)
    other = write_dicom_slide(tmp_path / "smaller", halved(PIXELS), 0.5)
    changed(other / f"{BASE}.dcm", SOPInstanceUID="1.2.3.13").rename(folder / "smaller.dcm")
    shutil.rmtree(other)
    return folder


def write_report(path: Path) -> Path:
    path.write_bytes(structured_report())
    return path


def write_dicomdir(path: Path) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MediaStorageDirectoryStorage, UID("1.2.3.70")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    directory.FileSetID, directory.FileSetConsistencyFlag, directory.DirectoryRecordSequence = "CASE", 0, []
    directory.save_as(path)
    return path


def test_the_levels_of_a_series_are_a_slide_and_its_label_is_not(slide: Path) -> None:
    with open_slide(slide) as opened:
        assert opened.level_dimensions == ((400, 300), (200, 150))
        assert (opened.mpp, opened.vendor, opened.warnings) == ((0.25, 0.25), "dicom", ())
        assert [Path(file).name for file in opened.files] == [f"{LABEL}.dcm", f"{BASE}.dcm", "smaller.dcm"]
        np.testing.assert_array_equal(opened.read(Box(0, 0, 400, 300)), PIXELS)
    np.testing.assert_array_equal(shown(slide / "smaller.dcm"), PIXELS)


def test_instances_in_folders_of_their_own_are_one_slide(slide: Path, tmp_path: Path) -> None:
    for number, file in enumerate(sorted(slide.iterdir())):
        (tmp_path / f"medium/ST{number}/IM").mkdir(parents=True)
        file.rename(tmp_path / f"medium/ST{number}/IM/IM0000")
    assert slides_in(tmp_path / "medium") is None
    with open_slide(tmp_path / "medium") as opened:
        assert opened.level_dimensions == ((400, 300), (200, 150))
        np.testing.assert_array_equal(opened.read(Box(0, 0, 400, 300)), PIXELS)


def test_a_medium_with_a_directory_opens_by_its_folder_and_by_the_directory(slide: Path, tmp_path: Path) -> None:
    (tmp_path / "medium/PT000000/SE000000").mkdir(parents=True)
    for number, file in enumerate(sorted(slide.iterdir())):
        file.rename(tmp_path / f"medium/PT000000/SE000000/IM{number:06}")
    write_dicomdir(tmp_path / "medium/DICOMDIR")
    write_report(tmp_path / "medium/report.dcm")
    for path in (tmp_path / "medium", tmp_path / "medium/DICOMDIR"):
        np.testing.assert_array_equal(shown(path), PIXELS)
    assert slide_in(tmp_path / "medium") == tmp_path / "medium/PT000000/SE000000"


def test_a_report_beside_the_slide_is_not_the_slide(slide: Path) -> None:
    write_report(slide / "0 report.dcm")
    np.testing.assert_array_equal(shown(slide), PIXELS)
    with pytest.raises(NotASlide, match="Comprehensive 3D SR"):
        open_slide(slide / "0 report.dcm")


def test_a_label_that_cannot_be_read_does_not_hinder(slide: Path) -> None:
    changed(slide / f"{LABEL}.dcm", SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2")
    np.testing.assert_array_equal(shown(slide), PIXELS)


def test_a_file_that_was_copied_twice_is_no_second_picture(slide: Path) -> None:
    shutil.copy(slide / f"{BASE}.dcm", slide / "copy.dcm")
    np.testing.assert_array_equal(shown(slide), PIXELS)


def second_slide(slide: Path) -> Path:
    """Another slide in the same folder; gives its file."""
    path = slide / "second.dcm"
    shutil.copy(slide / f"{BASE}.dcm", path)
    return changed(path, SeriesInstanceUID=SECOND, SOPInstanceUID=f"{SECOND}.1")


def test_two_slides_in_a_folder_are_refused_together_and_read_one_by_one(slide: Path) -> None:
    second = second_slide(slide)
    with pytest.raises(SlideAmbiguous, match=rf"slide holds 2 slides \(series {SERIES}, series {SECOND}\)"):
        open_slide(slide)
    for path in (slide / f"{BASE}.dcm", second):
        np.testing.assert_array_equal(shown(path), PIXELS)
    assert slides_in(slide) == sorted([slide / f"{BASE}.dcm", second])


def test_a_folder_of_slides_of_every_kind_lists_each_once(slide: Path, tmp_path: Path) -> None:
    second = second_slide(slide)
    (tmp_path / "own").mkdir()
    second.rename(tmp_path / "own/second.dcm")
    for file in list(slide.iterdir()):
        file.rename(tmp_path / file.name)
    slide.rmdir()
    write_report(tmp_path / "report.dcm")
    ct = write_ct(tmp_path / "ct.dcm")
    svs = write_svs(tmp_path / "a.svs", PIXELS)
    assert slides_in(tmp_path) == sorted([tmp_path / f"{BASE}.dcm", svs, ct, tmp_path / "own"])


def test_a_zip_of_two_dicom_slides_is_refused(slide: Path, tmp_path: Path) -> None:
    second_slide(slide)
    assert unpacked_error(slide, tmp_path, ArchiveUnsafe) == "holds 2 slides"


@pytest.mark.parametrize("nested", ["", "PAT/STUDY 1/SM"])
def test_the_zip_of_an_archive_is_its_slide(slide: Path, tmp_path: Path, nested: str) -> None:
    """Orthanc's: the study's folders, with whatever else is in it."""
    write_report(slide / "report.dcm")
    (tmp_path / "zipped").mkdir()
    below = tmp_path / "zipped" / nested
    shutil.copytree(slide, below, dirs_exist_ok=True)
    (tmp_path / "out").mkdir()
    unpack(zip_folder(tmp_path / "a.zip", tmp_path / "zipped"), tmp_path / "out", 1 << 30)
    found = slide_in(tmp_path / "out")
    assert found == tmp_path / "out" / nested
    np.testing.assert_array_equal(shown(found), PIXELS)


def unpacked_error(folder: Path, tmp_path: Path, error: type[Exception]) -> str:
    (tmp_path / "unpacked").mkdir()
    with zipfile.ZipFile(zip_folder(tmp_path / "a.zip", folder)) as archive:
        archive.extractall(tmp_path / "unpacked")
    with pytest.raises(error, match=r"holds \d slides|holds CT") as raised:
        slide_in(tmp_path / "unpacked")
    return " ".join(str(raised.value).split()[2:5])


def write_ct(path: Path, sop_class: UID = CTImageStorage) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, UID("1.2.3.77")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    image.SOPClassUID, image.SOPInstanceUID, image.SeriesInstanceUID = sop_class, "1.2.3.77", "1.2.3.78"
    image.Rows = image.Columns = 16
    image.PixelData = bytes(512)
    image.save_as(path)
    return path


def test_other_images_are_unsupported_by_their_names(tmp_path: Path) -> None:
    with pytest.raises(SlideUnsupported, match="CT Image; what is read is DICOM's VL Whole Slide"):
        open_slide(write_ct(tmp_path / "ct.dcm"))
    write_ct(tmp_path / "mg.dcm", DigitalMammographyXRayImageStorageForPresentation)
    with pytest.raises(SlideUnsupported, match=r"CT Image, Digital Mammography"):
        open_slide(tmp_path)
    assert unpacked_error(tmp_path, tmp_path.parent, SlideUnsupported) == "holds CT Image,"


UNSUPPORTED: dict[str, dict[str, Any]] = {
    "High-Throughput JPEG 2000": {"TransferSyntaxUID": HTJ2KLossless},
    "JPEG-LS Lossless": {"TransferSyntaxUID": JPEGLSLossless},
    "RLE Lossless": {"TransferSyntaxUID": RLELossless},
    "in shades of grey": {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"},
    "of 16 bits": {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15},
    "in several focal planes": {"TotalPixelMatrixFocalPlanes": 3},
    "in colour planes": {"PlanarConfiguration": 1},
    "without an image type": {"ImageType": None},
}


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_what_is_not_read_is_unsupported_by_its_name(slide: Path, what: str) -> None:
    for file in slide.iterdir():
        instance = pydicom.dcmread(file)
        if "TransferSyntaxUID" in UNSUPPORTED[what]:
            instance.PixelData = encapsulate([b"\0" * 64] * int(instance.NumberOfFrames))
            instance["PixelData"].is_undefined_length = True
        if UNSUPPORTED[what].get("ImageType", 0) is None:
            del instance.ImageType
        instance.save_as(file)
        changed(file, **{key: value for key, value in UNSUPPORTED[what].items() if value is not None})
    with pytest.raises(SlideUnsupported, match=rf"slide is .*{what}.*convert it"):
        open_slide(slide)


def test_deflated_files_are_unsupported_and_no_slide_beside_one_that_is_read(slide: Path, tmp_path: Path) -> None:
    deflated = tmp_path / "deflated"
    shutil.copytree(slide, deflated)
    for file in deflated.iterdir():
        changed(file, TransferSyntaxUID=DeflatedExplicitVRLittleEndian)
    for path in (deflated, deflated / f"{BASE}.dcm"):
        with pytest.raises(SlideUnsupported, match="compressed as Deflated Explicit VR Little Endian"):
            open_slide(path)
    shutil.copy(deflated / f"{BASE}.dcm", slide / "deflated.dcm")
    np.testing.assert_array_equal(shown(slide), PIXELS)


def test_focal_planes_in_files_of_their_own_are_unsupported_too(slide: Path) -> None:
    shutil.copy(slide / f"{BASE}.dcm", slide / "plane.dcm")
    changed(slide / "plane.dcm", SOPInstanceUID="1.2.3.14")
    with pytest.raises(SlideUnsupported, match="several images of one size"):
        open_slide(slide)


def test_a_real_slide_without_an_image_type_is_unsupported(shared: Path) -> None:
    with pytest.raises(SlideUnsupported, match="without an image type"):
        open_slide(shared / "data/slides/small_dicom.dcm")


def test_a_value_that_cannot_be_read_is_damage(slide: Path) -> None:
    """Here Rows, of a kind of value that there is not; pydicom says so in its own words, whoever asks for it."""
    for file in slide.iterdir():
        file.write_bytes(file.read_bytes().replace(b"\x28\0\x10\0US", b"\x28\0\x10\0WL"))
    with pytest.raises(SlideDamaged):
        open_slide(slide)


def test_what_is_kept_to_read_a_slide_goes_when_it_is_closed(slide: Path, monkeypatch: Any, tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with open_slide(slide):
        assert len(list((tmp_path / "temporary").iterdir())) == 1
    assert list((tmp_path / "temporary").iterdir()) == []
