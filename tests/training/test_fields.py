"""The three layouts of labelled fields: what they give, and what stops them."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from service.errors import BadInput, PixelsUnsupported, ResolutionUnknown
from service.training.fields import (
    DataInvalid,
    load_field,
    read_fields,
    read_midog,
    read_plain,
    read_tupac16,
    refuse_shared_cases,
    split_cases,
)
from tests.slides import draw_tissue


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Two fields of 60 x 40 px with three mitoses."""
    (tmp_path / "images").mkdir()
    for name, colour in {"a": "pink", "b": "plum"}.items():
        Image.new("RGB", (60, 40), colour).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "frames.csv").write_text("frame,case,width,height,mitoses\na,C1,60,40,2\nb,C2,60,40,1\n")
    (tmp_path / "mitoses.csv").write_text("frame,x,y\na,10,20\na,59.5,0\nb,3,4\n")
    return tmp_path


def blank(path: Path, size: tuple[int, int]) -> None:
    """An image whose pixels do not matter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("1", size).save(path, compression="group4", description=str(path))


def test_plain_layout(plain: Path) -> None:
    first, second = read_fields(plain, 0.25)
    assert (first.name, first.case, first.width, first.height, first.mpp) == ("a", "C1", 60, 40, (0.25, 0.25))
    assert first.mitoses.tolist() == [[10, 20], [59.5, 0]]
    assert second.mitoses.tolist() == [[3, 4]]


def test_a_laboratory_is_named_or_called_like_the_folder(plain: Path) -> None:
    assert [field.laboratory for field in read_fields(plain, 0.25)] == [plain.name] * 2
    (plain / "frames.csv").write_text("frame,case,width,height,laboratory\na,C1,60,40,Utrecht\nb,C2,60,40,\n")
    assert [field.laboratory for field in read_fields(plain, 0.25)] == ["Utrecht", plain.name]


def test_uncertain_places_and_quiet_tissue(plain: Path) -> None:
    (plain / "uncertain.csv").write_text("frame,x,y\nb,30,30\n")
    first, second = read_fields(plain, 0.25, quiet=True)
    assert (first.uncertain.shape, second.uncertain.tolist()) == ((0, 2), [[30, 30]])
    assert first.quiet
    assert not read_fields(plain, 0.25)[0].quiet
    for row, message in (
        ("b,30,40", "lies outside"),
        ("z,1,1", "frame 'z' is not in"),
        ("b,x,1", "'x' is not a number"),
    ):
        (plain / "uncertain.csv").write_text(f"frame,x,y\n{row}\n")
        with pytest.raises(DataInvalid, match=f"uncertain.csv.*{message}"):
            read_fields(plain, 0.25)


def test_the_frames_own_resolution_comes_first(plain: Path) -> None:
    (plain / "frames.csv").write_text("frame,case,width,height,mpp\na,C1,60,40,0.23\nb,C2,60,40,\n")
    assert [field.mpp[0] for field in read_fields(plain, 0.5)] == [0.23, 0.5]


def test_resolution_is_never_guessed(plain: Path) -> None:
    with pytest.raises(ResolutionUnknown, match="--mpp"):
        read_fields(plain)


@pytest.mark.parametrize(
    ("name", "mpp", "fields", "mitoses", "cases"),
    [("mitos14", 0.2274, 286, 550, 8), ("icpr2012", 0.2456, 20, 149, 3)],
)
def test_real_plain_data(shared: Path, name: str, mpp: float, fields: int, mitoses: int, cases: int) -> None:
    found = read_fields(shared / "data" / name, mpp)
    assert len(found) == fields
    assert sum(len(field.mitoses) for field in found) == mitoses
    assert len({field.case for field in found}) == cases


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        pytest.param("mitoses.csv", "frame,x,y\na,10,20\na,5,5\nb,60,4\n", r"mitoses.csv, line 4: .*outside", id="x"),
        pytest.param("mitoses.csv", "frame,x,y\na,10,20\na,5,-1\nb,6,4\n", r"mitoses.csv, line 3: .*outside", id="y"),
        pytest.param("mitoses.csv", "frame,x,y\na,10,20\na,5,ten\n", r"mitoses.csv, line 3: 'ten'", id="text"),
        pytest.param("mitoses.csv", "frame,x,y\na,10,nan\n", r"mitoses.csv, line 2: 'nan'", id="nan"),
        pytest.param("mitoses.csv", "frame,x,y\na,10\n", r"mitoses.csv, line 2: 3 values expected, 2", id="short"),
        pytest.param("mitoses.csv", "frame,x\na,10\n", r"mitoses.csv, line 1: no column y", id="column"),
        pytest.param(
            "mitoses.csv", "frame;x;y\na;1,5;2\n", r"no column frame, x, y; .* by ';': save it", id="semicolons"
        ),
        pytest.param("mitoses.csv", "frame,x,y\nzz,1,1\n", r"mitoses.csv, line 2: frame 'zz'", id="unknown frame"),
        pytest.param("mitoses.csv", "frame,x,y\na,1,1\nb,1,1\n", r"frames.csv, line 2: 2 mitoses", id="count"),
        pytest.param("frames.csv", "frame,case,width,height\na,C,60,40\n", r"b.png: .*no row", id="unlisted"),
        pytest.param("frames.csv", "frame,case,width,height\na,C,60,40\na,C,60,40\n", "listed twice", id="twice"),
        pytest.param("frames.csv", "frame,case,width,height\na,C,61,40\nb,C,60,40\n", r"line 2: a.png", id="size"),
        pytest.param(
            "frames.csv", "frame,case,width,height\na,C,60,40\nb,C,60,40\nc,C,9,9\n", "line 4: .*c", id="gone"
        ),
        pytest.param("images/a.png", "no image", "a.png: not a readable image", id="broken image"),
    ],
)
def test_bad_plain_data(plain: Path, file: str, content: str, said: str) -> None:
    (plain / file).write_text(content)
    with pytest.raises(DataInvalid, match=said):
        read_plain(plain, 0.25)


def test_data_invalid_is_bad_input_with_a_stable_code() -> None:
    assert issubclass(DataInvalid, BadInput)
    assert DataInvalid.code == "data-invalid"


def test_a_folder_of_nothing_known(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="no frames"):
        read_fields(tmp_path)
    with pytest.raises(DataInvalid, match="no such folder"):
        read_fields(tmp_path / "gone")


def test_tupac16_layout_with_real_labels(shared: Path, tmp_path: Path) -> None:
    labels = shared / "data" / "labels" / "tupac16_alternative" / "mitoses_ground_truth"
    for case in ("01", "24"):
        for label in sorted((labels / case).glob("*.csv"))[:20]:
            blank(tmp_path / case / f"{label.stem}.tif", (2000, 2000) if case == "01" else (5657, 5657))
            (tmp_path / "mitoses_ground_truth" / case).mkdir(parents=True, exist_ok=True)
            shutil.copy(label, tmp_path / "mitoses_ground_truth" / case)
    fields = {field.name: field for field in read_fields(tmp_path)}
    assert fields["01/01"].mitoses.tolist() == [[1, 838], [1585, 777]]  # row,column from 1 to x,y from 0
    assert fields["01/01"].mpp == (0.25, 0.25)
    assert len(fields["01/19"].mitoses) == 0
    assert {field.case for field in fields.values()} == {"01", "24"}
    written = sum(len(path.read_text().split()) for path in tmp_path.rglob("*.csv"))
    assert sum(len(field.mitoses) for field in fields.values()) == written > 20


def test_tupac16_labels_beside_the_images(tmp_path: Path) -> None:
    for image in ("01/01", "01/02", "30/01", "31/01"):
        blank(tmp_path / f"{image}.tif", (100, 80))
    (tmp_path / "01" / "01.csv").write_text("80,100\n")
    fields = read_tupac16(tmp_path)
    assert [len(field.mitoses) for field in fields] == [1, 0, 0, 0]
    assert fields[0].mitoses.tolist() == [[99, 79]]
    (tmp_path / "01" / "01.csv").unlink()
    with pytest.raises(DataInvalid, match="no image has a file of labels"):
        read_tupac16(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [("3,4\n81,1\n", r"01.csv, line 2: .*outside"), ("3\n", r"line 1: row,column"), ("3,x\n", r"line 1: 'x'")],
)
def test_bad_tupac16_labels(tmp_path: Path, content: str, said: str) -> None:
    blank(tmp_path / "01" / "01.tif", (100, 80))
    (tmp_path / "01" / "01.csv").write_text(content)
    with pytest.raises(DataInvalid, match=said):
        read_tupac16(tmp_path)


def test_a_tupac16_label_without_its_image(tmp_path: Path) -> None:
    blank(tmp_path / "01" / "01.tif", (100, 80))
    (tmp_path / "01" / "02.csv").write_text("1,1\n")
    with pytest.raises(DataInvalid, match=r"02.csv: the image 01/02.tif is missing"):
        read_tupac16(tmp_path)


def test_midog_layout_with_real_labels(shared: Path, tmp_path: Path) -> None:
    content = json.loads((shared / "data" / "labels" / "MIDOG++.json").read_text())
    content["images"] = [image for image in content["images"] if image["id"] in (1, 2, 305)]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in kept]
    (tmp_path / "MIDOG.json").write_text(json.dumps(content))
    for image in content["images"]:
        blank(tmp_path / image["file_name"], (image["width"], image["height"]))
    fields = read_fields(tmp_path, 0.25)
    assert [field.case for field in fields] == ["001", "002", "305"]
    mitoses = sum(each["category_id"] == 1 for each in content["annotations"])
    assert sum(len(field.mitoses) for field in fields) == mitoses
    assert [0.0, 2416.0] in fields[2].mitoses.tolist()  # its box is cut by the left border


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bbox": [200, 10, 250, 60]}, "annotation 7: .*outside"),
        ({"bbox": [1, 2, 3]}, "annotation 7: bbox"),
        ({"image_id": 9}, "annotation 7 is of image 9"),
    ],
)
def test_bad_midog_annotations(tmp_path: Path, change: dict[str, object], said: str) -> None:
    blank(tmp_path / "001.tiff", (100, 80))
    images = [{"id": 1, "file_name": "001.tiff", "width": 100, "height": 80, "mpp": 0.23}]
    good = {"id": 7, "image_id": 1, "category_id": 1, "bbox": [10, 10, 60, 60]}
    (tmp_path / "labels.json").write_text(json.dumps({"images": images, "annotations": [good]}))
    assert read_fields(tmp_path)[0].mitoses.tolist() == [[35, 35]]
    (tmp_path / "labels.json").write_text(json.dumps({"images": images, "annotations": [{**good, **change}]}))
    with pytest.raises(DataInvalid, match=said):
        read_fields(tmp_path)


def test_a_midog_image_that_is_missing_or_another(tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text(
        json.dumps({"images": [{"id": 1, "file_name": "1.tiff", "width": 9, "height": 9}], "annotations": []})
    )
    with pytest.raises(DataInvalid, match=r"image 1: .* is missing"):
        read_midog(tmp_path, labels, 0.25)
    blank(tmp_path / "1.tiff", (10, 9))
    with pytest.raises(DataInvalid, match=r"image 1: .*the entry says"):
        read_midog(tmp_path, labels, 0.25)
    (tmp_path / "data").mkdir()
    for outside in ("../1.tiff", str(tmp_path / "1.tiff")):
        image = {"id": 1, "file_name": outside, "width": 10, "height": 9}
        (tmp_path / "data/m.json").write_text(json.dumps({"images": [image], "annotations": []}))
        with pytest.raises(DataInvalid, match=r"image 1: .* is missing"):
            read_fields(tmp_path / "data", 0.25)
    labels.write_text('{"images": [\n}')
    with pytest.raises(DataInvalid, match=r"labels.json, line 2"):
        read_midog(tmp_path, labels, 0.25)


def test_splits_are_by_case(plain: Path) -> None:
    fields = read_plain(plain, 0.25)
    train, validation = split_cases(fields, ["C2"])
    assert [field.case for field in train] == ["C1"]
    assert [field.case for field in validation] == ["C2"]
    with pytest.raises(DataInvalid, match="no case C3"):
        split_cases(fields, ["C3"])
    with pytest.raises(DataInvalid, match="nothing is left"):
        split_cases(fields, ["C1", "C2"])
    with pytest.raises(DataInvalid, match="case C1 is in training"):
        refuse_shared_cases({"training": fields, "test": fields[:1]})


@pytest.mark.parametrize("mpp", [0.25, 0.2456, 0.2274, 0.5])
def test_mitoses_are_resampled_with_their_pixels(tmp_path: Path, mpp: float) -> None:
    pixels = np.full((400, 500, 3), 255, np.uint8)
    pixels[120:128, 300:308] = 0
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    (tmp_path / "frames.csv").write_text("frame,case,width,height\na,C,500,400\n")
    (tmp_path / "mitoses.csv").write_text("frame,x,y\na,303.5,123.5\n")
    resampled, mitoses, _ = load_field(read_plain(tmp_path, mpp)[0], 0.25)
    factor = 1.0 if mpp == 0.2456 else mpp / 0.25  # what is near enough is read as it is, as the service does
    assert resampled.shape == (int(400 * factor), int(500 * factor), 3)
    dark = 255.0 - resampled[..., 0]
    y, x = np.indices(dark.shape)
    assert mitoses[0] == pytest.approx(
        [(dark * x).sum() / dark.sum(), (dark * y).sum() / dark.sum()], abs=0.05
    )  # whole intensities


@pytest.mark.parametrize(
    ("frames", "mitoses", "code", "said"),
    [
        pytest.param("a,C1,60,40,0\nb,C2,60,40,0.2", "a,1,1", "mpp-invalid", "a.png: mpp 0", id="no size"),
        pytest.param("a,C1,60,40,-1\nb,C2,60,40,1", "a,1,1", "mpp-invalid", "a.png: mpp -1", id="negative"),
        pytest.param("a,C1,60,40,250\nb,C2,60,40,1", "a,1,1", "resolution-too-low", "a.png: 250 um", id="nm"),
        pytest.param("a,,60,40,.2\nb,C2,60,40,.2", "a,1,1", "data-invalid", "a.png: it is of no case", id="no case"),
        pytest.param("a,h 3,60,40,.2\nb,H  3,60,40,.2", "a,1,1", "data-invalid", "capitals or spaces", id="alike"),
        pytest.param("a,C,60,40,.2\nb,C,60,40,.2", "b,3,4\nb,3.2,4", "data-invalid", "b.png: .*twice", id="twice"),
    ],
)
def test_what_no_layout_may_say(plain: Path, frames: str, mitoses: str, code: str, said: str) -> None:
    (plain / "frames.csv").write_text(f"frame,case,width,height,mpp\n{frames}\n")
    (plain / "mitoses.csv").write_text(f"frame,x,y\n{mitoses}\n")
    with pytest.raises(BadInput, match=said) as refused:
        read_fields(plain)
    assert refused.value.code == code


def test_columns_are_told_apart_whatever_their_capitals(plain: Path) -> None:
    (plain / "frames.csv").write_text("frame,Case,width,height, MPP\na,C1,60,40,0.23\nb,C2,60,40,0.23\n")
    assert [field.mpp[0] for field in read_fields(plain, 0.5)] == [0.23, 0.23]
    (plain / "frames.csv").write_text("frame,case,width,height,mpp,MPP\na,C1,60,40,0.23,0.5\n")
    with pytest.raises(DataInvalid, match="two columns are called mpp"):
        read_fields(plain)


def test_two_images_of_one_name(plain: Path) -> None:
    Image.new("RGB", (60, 40), "white").save(plain / "images" / "a.tif")
    with pytest.raises(DataInvalid, match=r"a.tif: a.png lies beside it"):
        read_fields(plain, 0.25)


def test_cases_of_two_folders_that_are_written_differently(plain: Path) -> None:
    fields = read_fields(plain, 0.25)
    with pytest.raises(DataInvalid, match=r"case 'c1' .* and case 'C1'"):
        refuse_shared_cases({"one": fields, "two": [dataclasses.replace(fields[0], case="c1")]})


@pytest.mark.parametrize(
    ("part", "number", "change", "said"),
    [
        pytest.param("annotations", 0, {"bbox": [40, 30, 25, 20]}, "annotation 7: .*width and height", id="COCO's box"),
        pytest.param("annotations", 0, {"bbox": [math.nan] * 4}, "annotation 7: bbox", id="NaN"),
        pytest.param("annotations", 0, {"category_id": "1"}, "annotation 7: category_id", id="category"),
        pytest.param("images", 0, {"mpp": "0.25"}, "image 1: mpp", id="mpp"),
        pytest.param("images", 0, {"width": None}, "image 1: width", id="width"),
        pytest.param("images", 1, {"id": 1}, "two images have the id 1", id="id"),
        pytest.param("images", 1, {"file_name": "1.tiff"}, "two images have the file_name", id="file"),
        pytest.param("categories", 0, {"name": "hard negative"}, "category 1 is 'hard negative'", id="name"),
    ],
)
def test_a_midog_file_is_checked_as_a_whole(
    tmp_path: Path, part: str, number: int, change: dict[str, object], said: str
) -> None:
    images = [{"id": each, "file_name": f"{each}.tiff", "width": 100, "height": 80, "mpp": 0.23} for each in (1, 2)]
    marks = [{"id": 7, "image_id": 1, "category_id": 1, "bbox": [10, 10, 60, 60]}]
    content = {"images": images, "annotations": marks, "categories": [{"id": 1, "name": "mitotic figure"}]}
    for image in images:
        blank(tmp_path / str(image["file_name"]), (100, 80))
    (tmp_path / "labels.json").write_text(json.dumps(content))
    assert [len(field.mitoses) for field in read_fields(tmp_path)] == [1, 0]
    content[part][number] |= change
    (tmp_path / "labels.json").write_text(json.dumps(content))
    with pytest.raises(DataInvalid, match=said):
        read_fields(tmp_path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_an_image_that_is_stored_turned_is_refused_in_every_layout(suffix: str, tmp_path: Path) -> None:
    """Its marks may be of the image as it is stored, or as it is shown: half of the programs turn it."""
    image = {"id": 1, "file_name": f"a.{suffix}", "width": 40, "height": 40}
    layouts = {
        f"plain/images/a.{suffix}": ("frames.csv", "frame,case,width,height\na,C,40,40\n"),
        f"midog/a.{suffix}": ("m.json", json.dumps({"images": [image], "annotations": []})),
        f"annotated/a.{suffix}": ("a.geojson", '{"type": "FeatureCollection", "features": []}'),
        "tupac/01/01.tif": ("01.csv", ""),
    }
    for name, (labels, content) in layouts.items():
        path, folder = tmp_path / name, tmp_path / name.partition("/")[0]
        path.parent.mkdir(parents=True)
        (path.parent if folder.name == "tupac" else folder).joinpath(labels).write_text(content)
        (folder / "mitoses.csv").write_text("frame,x,y\n")
        for orientation in range(10):  # 0 and 9 mean nothing
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = orientation
            Image.new("RGB", (40, 40)).save(path, exif=exif)
            if 2 <= orientation <= 8:
                with pytest.raises(DataInvalid, match=f"{path.name}: its orientation is {orientation}"):
                    read_fields(folder, 0.25)
            else:
                assert len(read_fields(folder, 0.25)) == 1


def seen_through(pixels: np.ndarray) -> Image.Image:
    """Opaque above, half so in the middle, clear below."""
    image = Image.fromarray(pixels)
    image.putalpha(Image.fromarray(np.repeat(np.uint8([[255], [128], [0]]), pixels.shape[1], 1).repeat(20, 0)))
    return image


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_what_is_clear_is_as_on_white_paper(suffix: str, plain: Path) -> None:
    pixels = draw_tissue(60, 60)
    (plain / "images" / "a.png").unlink()
    seen_through(pixels).save(plain / "images" / f"a.{suffix}")
    rows = "frame,case,width,height\na,C1,60,60\nb,C2,60,40\n"
    (plain / "frames.csv").write_text(rows)
    found, _, _ = load_field(read_fields(plain, 0.25)[0], 0.25)
    white = np.full((20, 60, 3), 255, np.uint8)
    np.testing.assert_array_equal(found[:20], pixels[:20])
    np.testing.assert_allclose(found[20:40], 255 - (255 - pixels[20:40].astype(float)) * 128 / 255, atol=1)
    np.testing.assert_array_equal(found[40:], white)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("L", "jpg"), ("LA", "png"), ("I;16", "png"), ("CMYK", "jpg")]
)
def test_what_is_no_8_bit_rgb_is_refused_and_a_palette_is_not(mode: str, suffix: str, plain: Path) -> None:
    tissue = Image.fromarray(draw_tissue(60, 40))
    (plain / "images" / "a.png").unlink()
    (tissue if mode != "I;16" else tissue.convert("L")).convert(mode).save(plain / "images" / f"a.{suffix}")
    palette = tissue.quantize(256)
    palette.save(plain / "images" / "b.png")
    odd, plainly = read_fields(plain, 0.25)
    with pytest.raises(PixelsUnsupported, match="must be 8-bit RGB"):
        load_field(odd, 0.25)
    np.testing.assert_array_equal(load_field(plainly, 0.25)[0], np.asarray(palette.convert("RGB")))
