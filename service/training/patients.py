"""Which cases may be one patient: the same number under two letters, as of one slide on two scanners (H03, A03).

Such cases are alike, so intervals draw them together, and splits that part them are warned of. To take two patients for
one only widens an interval.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from service.training.scoring import grouped

if TYPE_CHECKING:  # which needs torch
    from service.training.evaluate import CaseEvaluation

LETTERS_AND_NUMBER = re.compile(r"[A-Za-z]+0*(\d+)")


def patient_of(case: str) -> str:
    """Give what names a case's patient: the number where its name is letters and a number, else the whole name."""
    found = LETTERS_AND_NUMBER.fullmatch(case)
    return found[1] if found else case


def patients_of(cases: Iterable["CaseEvaluation"]) -> list[str]:
    """Give the patient of each case, as far as its name says it."""
    return [patient_of(each.case) for each in cases]


def patients_apart(sides: Iterable[Iterable[str]]) -> list[list[str]]:
    """List the cases that may be one patient and lie on several sides of a split."""
    alike = grouped((patient_of(case), (case, side)) for side, own in enumerate(sides) for case in own).values()
    return [sorted({case for case, _ in each}) for each in alike if len({side for _, side in each}) > 1]
