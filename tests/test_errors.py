"""The tree of errors that is drawn is the tree that is."""

import re

import pytest

from service import errors, refusals
from service.errors import BadInput, Failure, MitosisError, Refusal

DRAWN = re.compile(r"^(?P<branch>[|` ]*)-- (?P<name>\w+)(?: +(?P<code>[a-z]+(?:-[a-z]+)+)(?=  | \w| ))?", re.MULTILINE)


def all_errors(base: type[MitosisError] = MitosisError) -> list[type[MitosisError]]:
    return [each for child in base.__subclasses__() for each in (child, *all_errors(child))]


def drawn_tree() -> dict[str, tuple[str, str | None]]:
    """Parent and code of each class in the drawing."""
    tree: dict[str, tuple[str, str | None]] = {}
    branch = "MitosisError"
    for line in DRAWN.finditer(f"{errors.__doc__}\n{refusals.__doc__}"):
        outermost = len(line["branch"]) == 1
        tree[line["name"]] = ("MitosisError" if outermost else branch, None if outermost else line["code"])
        branch = line["name"] if outermost else branch
    return tree


def test_the_drawing_shows_every_class_under_its_parent() -> None:
    real = {each.__name__: each.__bases__[0].__name__ for each in all_errors()}
    assert {name: parent for name, (parent, _) in drawn_tree().items()} == real
    assert len(real) > 15


def test_the_drawing_shows_every_leafs_code() -> None:
    leaves = {each.__name__: each.code for each in all_errors() if not each.__subclasses__()}
    assert {name: code for name, (_, code) in drawn_tree().items() if code} == leaves


def test_codes_are_unique() -> None:
    codes = [each.code for each in (MitosisError, *all_errors())]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.__name__)
def test_exit_codes_say_whose_fault_it_is(error: type[MitosisError]) -> None:
    assert sum(issubclass(error, branch) for branch in (BadInput, Refusal, Failure)) == 1
    assert error.exit_code == (2 if issubclass(error, BadInput) else 1)
    assert error.__doc__
