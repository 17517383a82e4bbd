"""Which fields and which mistakes are shown, and in which order."""

import pytest

from service.training.figures import mistakes, most_to_see
from tests.training.examined import drawn


def test_mistakes_are_sorted_from_the_most_wrong() -> None:
    examined = [drawn({(10, 10): 0.7, (40, 20): 0.9, (60, 30): 0.4}, [(960.0, 480.0), (700.0, 100.0)])]
    assert [mark.score for _, mark in mistakes(examined, 0.5, "false positive")] == pytest.approx([0.9, 0.7])
    assert [mark.score for _, mark in mistakes(examined, 0.5, "false negative")] == pytest.approx([0, 0.4])
    several = [*examined, drawn({(1, 1): 0.9}, [], case="B"), drawn({(1, 1): 0.9, (30, 30): 0.9}, [(700.0, 100.0)])]
    assert [each.field.case for each in most_to_see(several, 0.5, 2)] == ["A", "B"]
