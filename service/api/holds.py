"""/v1/analyses/{id}/release, /assignment: a person decides whose result one is that is held."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from service.api.audit import DecisionsRoute
from service.api.auth import Reviewer
from service.api.errors import problems
from service.api.schemas import AnalysisStatus
from service.api.state import StateOf
from service.order import Text
from service.refusals import HoldChanged, NotFound
from service.review import Reviewer as Person
from service.store.holds import assign, release
from service.strict import StrictModel

router = APIRouter(prefix="/v1/analyses/{analysis_id}", tags=["review"], route_class=DecisionsRoute)

Hold = Annotated[Text, Field(description="`held.id` of the analysis: what was looked at.")]
Why = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]+$")]


class Release(StrictModel):
    """Somebody who has looked, and says that the result is of the order that it has."""

    reviewer: Annotated[Text, Field(description="Family, Given.")]
    reason: Why
    hold: Hold


class Assignment(StrictModel):
    """Somebody who has looked, and says which order the result is of."""

    reviewer: Annotated[Text, Field(description="Family, Given.")]
    reason: Why
    order: Annotated[Text, Field(description="The id of an order for one slide, as `held` names it.")]
    hold: Annotated[Hold | None, Field(description="null: the result is not held.")] = None


@router.post("/release", summary="Send a held result for its order", responses=problems(NotFound, HoldChanged))
def release_result(analysis_id: str, state: StateOf, caller: Reviewer, asked: Release) -> AnalysisStatus:
    """End a hold: what waits is sent for the order that the analysis has; the same is not asked again."""
    by = Person(asked.reviewer, None, caller.key_id)
    release(state.engine, analysis_id, caller.tenant, asked.hold, by, asked.reason)
    return state.shown(state.analyses.get(analysis_id, caller.tenant))


@router.post("/assignment", summary="Give a result to another order", responses=problems(NotFound, HoldChanged))
def assign_result(analysis_id: str, state: StateOf, caller: Reviewer, asked: Assignment) -> AnalysisStatus:
    """Take a result back wherever it was told (OBX-11 D, entered-in-error), then tell it for another order.

    A signature is of the patient before, and void; the decisions stay, and await another one.
    """
    by = Person(asked.reviewer, None, caller.key_id)
    assign(state.engine, analysis_id, caller.tenant, asked.order, asked.hold, by, asked.reason)
    return state.shown(state.analyses.get(analysis_id, caller.tenant))
