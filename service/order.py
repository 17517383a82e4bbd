"""The laboratory's order that an analysis belongs to, and where its result stands.

Names of people are plain text as somebody wrote them; "Family, Given" tells the parts apart, anything else is taken
as a family name. Identifiers and codes are the laboratory's own: nothing here is looked up or checked.
"""

from datetime import date
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, AwareDatetime, Field

from service.strict import StrictModel


def _day(text: str) -> str:
    date.fromisoformat(text)
    return text


Text = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), AfterValidator(_day)]  # text: JSON has no dates

# preliminary: computed, seen by nobody; final: a person confirmed it; amended: changed after it was final
ResultStatus: TypeAlias = Literal["preliminary", "final", "amended"]


class OrderedService(StrictModel):
    """The service that was ordered, as the order named it; results repeat it (HL7 OBR-4)."""

    code: Text
    text: Text
    system: Annotated[Text, Field(description="Of HL7 table 0396: LN, SCT, L, ...")] = "L"


class Order(StrictModel):
    """The order of the laboratory that an analysis belongs to; it is kept with it, and logged nowhere."""

    accession_number: Text | None = None
    specimen_id: Text | None = None
    container_id: Annotated[Text | None, Field(description="Of the glass slide.")] = None
    block: Text | None = None
    stain: Text | None = None
    ordering_provider: Annotated[Text | None, Field(description="A name: Family, Given.")] = None
    ordering_provider_id: Text | None = None
    patient_id: Text | None = None
    patient_id_issuer: Annotated[Text | None, Field(description="Who assigned the patient's identifier.")] = None
    patient_name: Annotated[Text | None, Field(description="Family, Given.")] = None
    patient_birth_date: Day | None = None
    patient_sex: Literal["female", "male", "other", "unknown"] | None = None
    placer_order_number: Annotated[Text | None, Field(description="The ordering system's.")] = None
    filler_order_number: Annotated[Text | None, Field(description="The laboratory's.")] = None
    service: OrderedService | None = None


class Confirmation(StrictModel):
    """The person who vouches for a final or amended result, and since when."""

    name: Text
    organization: Text | None = None
    at: AwareDatetime


def split_name(name: str) -> tuple[str, str]:
    """Split "Family, Given" into family and given name; all of it is the family name where there is no comma."""
    family, _, given = name.partition(",")
    return (family.strip(), given.strip()) if family.strip() else (name.strip(), "")
