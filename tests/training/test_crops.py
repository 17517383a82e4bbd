"""Crops with a mitosis in the middle: read, and scored where the mitosis is and where none is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from service.errors import BadInput, DataInvalid
from service.inference import Detector
from service.training.crops import AT_PX, BESIDE_PX, Crop, _highest, read_crops, score_crops
from tests.slides import draw_tissue

SIDE = 128
HEADER = "crop,case,laboratory,atypical,black_share,other_mitoses\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "crops").mkdir()
    tissue = draw_tissue(1000, 800)
    for number in range(4):
        Image.fromarray(tissue[300:428, 200 + 130 * number :][:, :SIDE]).save(tmp_path / "crops" / f"c{number}.png")
    rows = ["c0,A,L1,False,0.0,", "c1,A,L1,True,0.0,10 20; 100.5 90", "c2,B,L2,False,0.5,", "c3,B,L2,False,0.001,"]
    (tmp_path / "crops.csv").write_text(HEADER + "\n".join(rows) + "\n")
    return tmp_path


def test_crops_are_read_but_those_at_a_border(folder: Path) -> None:
    found = read_crops(folder)
    assert [(crop.name, crop.case, crop.laboratory) for crop in found] == [
        ("c0", "A", "L1"),
        ("c1", "A", "L1"),
        ("c3", "B", "L2"),
    ]
    assert found[1].others.tolist() == [[10, 20], [100.5, 90]]
    assert found[0].others.shape == (0, 2)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("c9,A,L,False,0,", "line 2: crops/c9 is missing"),
        ("c0,A,L,False,much,", "line 2: 'much' is not a number"),
        ("c0,A,L,False,0,1 2 3", "line 2: other_mitoses '1 2 3' is not x y"),
        ("c0,A,L,False,0,500 900", "line 2: other_mitoses '500 900' does not lie on the crop of 128 px"),
        ("c0,A,L,False,0,-1 5", "does not lie on the crop"),
        ("c0,,L,False,0,", "line 2: the crop c0 is of no case"),
        ("c0,A,L,False,50,", "line 2: black_share 50 is no share"),
        ("c0,A,L,False,0.5,", "there is no crop in it that lies within its image"),
    ],
)
def test_bad_rows_are_named(folder: Path, row: str, message: str) -> None:
    (folder / "crops.csv").write_text(HEADER + row + "\n")
    with pytest.raises(DataInvalid, match=message):
        read_crops(folder)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((128, 100), "128 x 100 px; crops are square"),
        ((64, 64), "of 96 px or more"),
        ((101, 101), "even side"),
        ((160, 160), "crops are of one size, and these of 128 and 160 px"),
    ],
)
def test_crops_that_cannot_be_scored_are_refused_before_a_network_is_trained(
    size: tuple[int, int], message: str, folder: Path
) -> None:
    Image.new("RGB", size).save(folder / "crops" / "c0.png")
    with pytest.raises(DataInvalid, match=message):
        read_crops(folder)


def test_a_crop_full_of_mitoses_is_named(folder: Path) -> None:
    everywhere = ";".join(f"{x} {y}" for x in range(8, 128, 28) for y in range(8, 128, 28))
    (folder / "crops.csv").write_text(HEADER + f"c0,A,L,False,0,{everywhere}\n")
    with pytest.raises(DataInvalid, match="nothing lies beside its many other mitoses"):
        score_crops(read_crops(folder), Detector.load(precision="float32"))


@pytest.mark.parametrize(("mode", "code"), [("L", "pixels-unsupported"), ("turned", "data-invalid")])
def test_a_crop_is_an_image_as_a_field_is(mode: str, code: str, folder: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6 if mode == "turned" else 1
    image = Image.open(folder / "crops" / "c1.png")
    (image if mode == "turned" else image.convert(mode)).save(folder / "crops" / "c1.png", exif=exif)
    with pytest.raises(BadInput, match=r"c1\.png") as raised:
        score_crops(read_crops(folder), Detector.load(precision="float32"))
    assert raised.value.code == code


def test_each_cell_answers_for_what_lies_its_offset_away() -> None:
    """Cell by cell: which score one loud cell gives, by the distance of what it saw."""
    detector = Detector.load(precision="float32")
    offset_x, offset_y = detector.card.offset_px
    other = (20.0, 100.0)
    crop = Crop("c", "A", "L", Path("c.png"), np.array([other]))
    for row in range(16):
        for column in range(16):
            cells = np.full((16, 16), 0.1, np.float32)
            cells[row, column] = 0.9
            x, y = 16 * column - offset_x - 64, 16 * row - offset_y - 64  # crop px
            near, far = np.hypot(x - 63.5, y - 63.5), np.hypot(x - other[0], y - other[1])
            (at, _), (beside, _) = _highest(crop, cells, SIDE, detector)
            assert (at > 0.5) == (near <= AT_PX)
            assert (beside > 0.5) == (min(near, far) > BESIDE_PX and 0 <= x < SIDE and 0 <= y < SIDE)


def test_scores_do_not_depend_on_the_order(folder: Path) -> None:
    detector, crops = Detector.load(precision="float32"), read_crops(folder)
    found = score_crops(crops, detector)
    assert [(each.case, each.laboratory) for each in found] == [(each.case, each.laboratory) for each in crops]
    again = score_crops(crops[::-1], detector)[::-1]
    np.testing.assert_allclose([each.at for each in found], [each.at for each in again], atol=1e-5)


def test_mitoses_of_five_laboratories_are_found_by_the_shipped_network(shared: Path) -> None:
    crops = read_crops(shared / "data" / "ami_br")[::40]
    found = score_crops(crops, Detector.load())
    assert np.mean([each.at >= 0.5 for each in found]) > 0.6
    assert np.mean([each.beside >= 0.5 for each in found]) < 0.1
