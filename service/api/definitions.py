"""/v1/definitions: what each count of a report means, in numbers and in words."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from service.api.auth import caller
from service.mitotic_activity import CONFIDENCE
from service.mitotic_definitions import MAI_BAAK, SCORE_DEFINITIONS, WindowShape

router = APIRouter(tags=["results"])


class Definition(BaseModel):
    """A published way to count mitoses and to class the count. A report names it by `id` and `table_version`."""

    id: str
    table_version: str
    title: Annotated[str, Field(description="For a heading.")]
    summary: Annotated[str, Field(description="Window and classes in one sentence, made of the numbers beside it.")]
    shape: WindowShape
    area_mm2: float
    field_diameter_mm: Annotated[
        float | None, Field(description="Of a microscope; the area is that of ten of its fields. Null: it is not.")
    ]
    cutoffs: Annotated[list[int], Field(description="The smallest count of each class but the first; may be empty.")]
    classes: Annotated[list[str], Field(description="The counts of each class in words; empty without cut-offs.")]
    source: str

    model_config = ConfigDict(from_attributes=True)


class DefinitionList(BaseModel):
    """The MAI, then every definition of a report's `scores`, in their order there."""

    confidence: Annotated[float, Field(description="Of the `interval` of every count: 0.95 is 95 %.")]
    definitions: list[Definition]


@router.get(
    "/v1/definitions", summary="The definitions by which mitoses are counted", dependencies=[Depends(caller("read"))]
)
def get_definitions() -> DefinitionList:
    """List areas, cut-offs and sources, and words for people."""
    known = (MAI_BAAK, *SCORE_DEFINITIONS)
    return DefinitionList(confidence=CONFIDENCE, definitions=[Definition.model_validate(each) for each in known])
