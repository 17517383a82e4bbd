"""Fields that no split would know for one patient's, or one laboratory's, are refused."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from service.cli.train import read_split
from service.errors import DataInvalid
from service.training.fields import read_fields

HEADER = "frame,case,width,height,mpp,laboratory\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data/images").mkdir(parents=True)
    for name, colour in {"a": "pink", "b": "plum"}.items():
        Image.new("RGB", (60, 40), colour).save(tmp_path / f"data/images/{name}.png")
    (tmp_path / "data/mitoses.csv").write_text("frame,x,y\n")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        pytest.param(
            ("C1", "Utrecht"), ("C2", "utrecht"), "laboratory 'utrecht' of .*b.png and laboratory", id="small"
        ),
        pytest.param(("Ä1", "U"), ("A\u03081", "U"), "case .* differ", id="composed and not"),
        pytest.param(("A1", "U"), ("A\u200b1", "U"), "case .* differ", id="a space of no width"),
        pytest.param(("A1", "U"), ("A1", "V"), "case A1 is of laboratory U .* and of V", id="two laboratories"),
    ],
)
def test_names_that_look_alike(folder: Path, first: tuple[str, str], second: tuple[str, str], said: str) -> None:
    rows = [
        f"{name},{case},60,40,0.25,{laboratory}" for name, (case, laboratory) in zip("ab", (first, second), strict=True)
    ]
    (folder / "frames.csv").write_text(HEADER + "\n".join(rows))
    with pytest.raises(DataInvalid, match=said):
        read_fields(folder)


def test_an_image_twice_in_two_cases_of_one_folder_or_of_two(folder: Path, tmp_path: Path) -> None:
    (folder / "frames.csv").write_text(HEADER + "a,A,60,40,0.25,U\nb,B,60,40,0.25,U\n")
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "frames.csv").write_text(HEADER + "a,C,60,40,0.25,V\nb,D,60,40,0.25,V\n")
    with pytest.raises(
        DataInvalid, match=r"data/images/a\.png of case A and .*other/images/a\.png of case C are the same"
    ):
        read_split([folder, other], None, "A")
    shutil.copy(folder / "images/a.png", folder / "images/b.png")
    with pytest.raises(DataInvalid, match=r"a\.png of case A and .*b\.png of case B are the same"):
        read_split([folder], None, "A")
