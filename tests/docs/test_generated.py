"""Pages that are written from the code say what the code says, and no variable that is read is missing from them."""

import ast
import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT

WRITTEN: dict[str, Callable[[], str]] = runpy.run_path(str(ROOT / "docs/write_tables.py"))["PAGES"]
SETTINGS = (ROOT / "docs/settings.md").read_text()
SOURCES = sorted((ROOT / "service").rglob("*.py"))
NAME = re.compile(r"\bMITOSIS_[A-Z0-9]+(?:_[A-Z0-9]+)*\b")


@pytest.mark.parametrize("name", WRITTEN)
def test_the_page_is_what_the_code_says(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == WRITTEN[name](), "run `make docs`"


def test_every_setting_is_described() -> None:
    rows = re.findall(r"^\| `MITOSIS_\w+` \|.*$", SETTINGS, re.MULTILINE)
    assert rows
    assert [row for row in rows if re.search(r"\|\s*\|$", row)] == []


def test_every_variable_of_ours_that_is_named_anywhere_is_a_setting() -> None:
    stack = [ROOT / "docker-compose.yml", *(path for path in (ROOT / "docker").rglob("*") if path.is_file())]
    files = [*SOURCES, *stack, ROOT / "Makefile", *(page.path for page in PAGES)]
    named = {name: path for path in files for name in NAME.findall(path.read_text())}
    assert {name: path.name for name, path in named.items() if f"`{name}`" not in SETTINGS} == {}


def test_every_variable_that_the_service_reads_is_on_the_page() -> None:
    read = {name: path.name for path in SOURCES for name in variables_read(path)}
    assert "FORWARDED_ALLOW_IPS" in read
    assert {name: file for name, file in read.items() if f"`{name}`" not in SETTINGS} == {}


def variables_read(path: Path) -> Iterator[str]:
    """Names that a module takes from the environment: by subscript, method, `in`, or os.getenv."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Subscript(value=place, slice=ast.Constant(value=str(name))):
                pass
            case ast.Call(func=ast.Attribute(value=place), args=[ast.Constant(value=str(name)), *_]):
                place = node.func if ast.unparse(node.func) == "os.getenv" else place
            case ast.Compare(left=ast.Constant(value=str(name)), comparators=[place]):
                pass
            case _:
                continue
        if ast.unparse(place) in ("os.environ", "os.getenv"):
            yield name
