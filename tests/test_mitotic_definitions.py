"""The words of the definitions: made of their numbers, and read once by eye; other words of ours repeat no others."""

import re
from math import pi

import pytest

from service.export import codes
from service.mitotic_activity import CONFIDENCE
from service.mitotic_definitions import (
    MAI_BAAK,
    RECTANGLE_SIDES,
    RESULT_NAMES,
    SCORE_DEFINITIONS,
    CountDefinition,
    ten_fields_mm2,
)

DEFINITIONS = (MAI_BAAK, *SCORE_DEFINITIONS)
EVERY_DEFINITION = pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda each: each.table_version)


def numbers_in(words: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", words)]


@EVERY_DEFINITION
def test_every_number_in_the_words_is_the_definitions(definition: CountDefinition) -> None:
    sides = [] if definition.shape == "circle" else list(RECTANGLE_SIDES)
    diameter = [definition.field_diameter_mm] if definition.field_diameter_mm else []
    bounds = [
        bound for cutoff in definition.cutoffs for bound in (cutoff - 1, cutoff)
    ]  # last of a class, first of next
    expected = [*sides, round(definition.area_mm2, 2), *diameter, *([0, *bounds] if bounds else [])]
    assert numbers_in(definition.summary) == expected
    assert numbers_in(" ".join(definition.classes)) == ([0, *bounds] if bounds else [])
    assert len(definition.classes) == (len(definition.cutoffs) + 1 if definition.cutoffs else 0)


@EVERY_DEFINITION
def test_the_area_is_that_of_ten_fields_where_there_is_a_field(definition: CountDefinition) -> None:
    if definition.field_diameter_mm:
        assert definition.area_mm2 == ten_fields_mm2(definition.field_diameter_mm)
        assert definition.area_mm2 == pytest.approx(10 * pi * (definition.field_diameter_mm / 2) ** 2)


@pytest.mark.parametrize(
    ("name", "summary"),
    [
        (
            "mai_baak",
            "Mitoses in the most active circle of 1.59 mm², ten fields 0.45 mm across; classes 0 to 9, 10 or more "
            "(high risk).",
        ),
        ("tupac16", "Mitoses in the most active 4:3 rectangle of 2.00 mm²; classes 0 to 5, 6 to 10, 11 or more."),
        (
            "vet_mc",
            "Mitoses in the most active 4:3 rectangle of 2.37 mm²; no classes, each tumour has cut-offs of its own.",
        ),
        ("gep_nen", "Mitoses in the most active circle of 2.00 mm²; classes 0 to 1, 2 to 20, 21 or more."),
    ],
)
def test_the_words_are_a_sentence(name: str, summary: str) -> None:
    (definition,) = (each for each in DEFINITIONS if each.id == name)
    assert definition.summary == summary


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda each: each.table_version)
def test_table_version_and_exported_meaning_agree_with_the_numbers(definition: CountDefinition) -> None:
    name = RESULT_NAMES.get((definition.id, definition.table_version), definition.id)
    meaning = next(code.meaning for code in codes.definition(name) if code.system == codes.LOCAL)
    for words in (definition.table_version, meaning):
        for area in re.findall(r"([\d.]+) mm2", words):
            assert float(area) == round(definition.area_mm2, 2)
        for diameter in re.findall(r"([\d.]+) mm\b(?!2)", words):
            assert float(diameter) == definition.field_diameter_mm


def test_the_exported_codes_name_the_confidence_of_the_intervals() -> None:
    for concept in (codes.LOWER, codes.UPPER):
        assert all(f" {100 * CONFIDENCE:g} % " in code.meaning for code in concept)


def test_each_definition_has_a_title_of_its_own() -> None:
    titles = [each.title for each in (MAI_BAAK, *SCORE_DEFINITIONS)]
    assert len(set(titles)) == len(titles)
