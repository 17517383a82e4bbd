"""Agreement of two readers: Cohen's kappa over the figures, both counts, and both classes of the MAI.

A figure is counted by a reader or is not; both are taken over all figures that the machine or either reader marked.
Where nobody marked anything there is no figure, so kappa is of the marked figures and not of the tissue.

Sources: kappa is that of Cohen, Educ Psychol Meas 1960;20:37-46. Its standard error is that of Fleiss, Cohen and
Everitt, Psychol Bull 1969;72:323-327 (the one for intervals, not the one under kappa = 0).
"""

import math
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from service.strict import Part

ReadingName = Literal["first", "second", "consensus"]
NORMAL_95 = 1.959964  # standard errors to either side of a two-sided interval of 95 %


class Said(Part):
    """One reader's word on a figure; of one that only the other reader added, it is not counted and undecided."""

    reviewer: str | None
    counted: bool
    decision: Literal["accepted", "rejected"] | None
    reason: str | None
    note: str | None


class MergedFigure(Part):
    """A figure as both readers left it; `id` and place (level-0 px) are those of the consensus."""

    id: int
    x: float
    y: float
    first: Said
    second: Said

    @property
    def agreed(self) -> bool:
        """True where both count it, or neither does."""
        return self.first.counted == self.second.counted


class Reader(Part):
    """A reader's signed counts."""

    reviewer: str
    total: int
    mai: int
    high_risk: Annotated[bool | None, Field(description="Class of the MAI; null where its window lacks tissue.")]


class Kappa(Part):
    """Cohen's kappa with its interval of 95 %, which is null where a reader puts all figures into one class.

    Kappa is null, too, where both do, into the same one.
    """

    kappa: float | None
    interval: tuple[float, float] | None


class Agreement(Kappa):
    """The agreement of two signed readings: the four-fold table of figures, and what is made of it."""

    both: Annotated[int, Field(description="Figures that both readers count.")]
    first_only: int
    second_only: int
    neither: int
    first: Reader
    second: Reader
    same_class: Annotated[bool | None, Field(description="Of the MAI; null where one of them has none.")]


class SecondReading(Part):
    """The readings of an analysis that may be read by two, as they stand; `agreement` once both have signed."""

    reading: Annotated[ReadingName | None, Field(description="The one that is shown; null: none, only the machine's.")]
    signed: Annotated[list[ReadingName], Field(description="Readings that are signed as they stand.")]
    withheld: Annotated[bool, Field(description="Whether nothing is sent with a signature of it before the consensus.")]
    agreement: Agreement | None = None
    figures: list[MergedFigure] | None = None
    disagreements: Annotated[list[int] | None, Field(description="Ids of the figures that one reader counts.")] = None


def cohens_kappa(table: npt.NDArray[np.float64], *, linear: bool = False) -> float | None:
    """Compute Cohen's kappa of a table (k, k) of two raters' classes; `linear`: a near class counts as half agreed.

    None where chance alone would agree always: all are of one class.
    """
    share = table / table.sum()
    apart = np.abs(np.subtract.outer(np.arange(len(table)), np.arange(len(table))))
    weights = apart if linear else apart > 0
    expected = float((weights * np.outer(share.sum(1), share.sum(0))).sum())
    return None if math.isclose(expected, 0.0, abs_tol=1e-12) else 1 - float((weights * share).sum()) / expected


def kappa_of(both: int, first_only: int, second_only: int, neither: int) -> Kappa:
    """Compute Cohen's kappa of a four-fold table, with its interval."""
    total = both + first_only + second_only + neither
    counts = np.array([[both, first_only], [second_only, neither]], float)
    kappa = cohens_kappa(counts) if total else None
    if kappa is None:
        return Kappa(kappa=None, interval=None)
    table = (counts / total).tolist()
    rows, columns = (counts.sum(axis) / total for axis in (1, 0))
    if not (rows.all() and columns.all()):  # kappa is 0 then, however the other one reads
        return Kappa(kappa=0.0, interval=None)
    expected = float(rows @ columns)
    agreed = sum(table[i][i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in (0, 1))
    differed = sum(table[i][1 - i] * (columns[i] + rows[1 - i]) ** 2 for i in (0, 1))
    variance = agreed + (1 - kappa) ** 2 * differed - (kappa - expected * (1 - kappa)) ** 2
    error = math.sqrt(max(variance, 0.0) / total) / (1 - expected)
    low, high = kappa - NORMAL_95 * error, kappa + NORMAL_95 * error
    return Kappa(kappa=round(kappa, 4), interval=(round(max(low, -1.0), 4), round(min(high, 1.0), 4)))


def agreement_of(figures: list[MergedFigure], first: Reader, second: Reader) -> Agreement:
    """Compare two signed readings, figure by figure and by their counts."""
    said = [(each.first.counted, each.second.counted) for each in figures]
    pairs = {"both": (True, True), "first_only": (True, False), "second_only": (False, True), "neither": (False, False)}
    table: dict[str, Any] = {name: said.count(pair) for name, pair in pairs.items()}
    classes = (first.high_risk, second.high_risk)
    same_class = None if None in classes else classes[0] == classes[1]
    return Agreement(**dict(kappa_of(**table)), **table, first=first, second=second, same_class=same_class)
