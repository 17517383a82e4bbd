"""What a model's own precision and recall make of a count, beside what chance does.

Of `count` figures about `count * precision` are mitoses, and those are about the share `recall` of all that are there:
so about `count * precision / recall` are there. The range takes each at the end of its interval that is the worst, and
so is wider than an interval of confidence of both would be. It holds for slides like those that the model was measured
on, and for counts that no person has looked at.
"""

from typing import Annotated, Self

from pydantic import BaseModel, Field, ValidationError

from service.model_card import ModelCard
from service.strict import Part

Share = Annotated[float, Field(gt=0, le=1)]


class CorrectedCount(Part):
    """The number of mitoses that a count stands for, by the model's precision and recall."""

    count: float
    range: tuple[float, float]
    precision: float
    recall: float


class DetectionError(BaseModel):
    """The precision and recall of a model, each with its interval, as its card has them."""

    precision: Share
    precision_interval: tuple[Share, Share]
    recall: Share
    recall_interval: tuple[Share, Share]

    @classmethod
    def of(cls, card: ModelCard) -> Self | None:
        """Read a card's `metrics.localisation`; None where it does not have all four."""
        metrics = (card.model_extra or {}).get("metrics")
        try:
            return cls.model_validate(metrics["localisation"] if isinstance(metrics, dict) else None)
        except (KeyError, ValidationError):
            return None

    def correct(self, count: int) -> CorrectedCount | None:
        """Correct a count, to one digit; None of no figures: a share of none says nothing of what was missed."""
        if count == 0:
            return None
        low = count * self.precision_interval[0] / self.recall_interval[1]
        high = count * self.precision_interval[1] / self.recall_interval[0]
        return CorrectedCount(
            count=round(count * self.precision / self.recall, 1),
            range=(round(low, 1), round(high, 1)),
            precision=round(self.precision, 4),
            recall=round(self.recall, 4),
        )
