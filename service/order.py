"""The laboratory's order that an analysis belongs to, and where its result stands.

Names of people are plain text as somebody wrote them; "Family, Given" tells the parts apart, anything else is taken
as a family name. Identifiers and codes are the laboratory's own: nothing here is looked up or checked.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, AwareDatetime, Field

from service.strict import StrictModel


def _day(text: str) -> str:
    date.fromisoformat(text)
    return text


Text = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), AfterValidator(_day)]  # text: JSON has no dates

# preliminary: computed, seen by nobody; final: a person confirmed it; amended: changed after it was final
ResultStatus: TypeAlias = Literal["preliminary", "final", "amended"]

Priority: TypeAlias = Literal["routine", "stat"]  # of an analysis; stat goes first

MAX_IDENTIFIERS: Final = 100  # of a patient: each is compared with each of other sources


class Identifier(StrictModel):
    """An identifier and who assigned it, by a name, a URI, or both; what was not said is None."""

    value: Text
    namespace: Text | None = None  # HL7's namespace, FHIR's assigner, DICOM's issuer
    system: Text | None = None  # a URI; an OID as urn:oid:
    type: Text | None = None  # of HL7 table 0203: MR, PI, NI, ...
    valid_from: Day | None = None
    valid_to: Day | None = None
    former: bool = False  # FHIR's use "old"

    @property
    def assigner(self) -> str:
        """Who assigned it, as far as it was said: two numbers with the same assigner and value are one."""
        return "^".join((self.namespace or "", self.system or "")).strip("^")

    def valid_on(self, day: str) -> bool:
        """Tell whether it holds on a day (ISO)."""
        return not self.former and (self.valid_from or day) <= day <= (self.valid_to or day)


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

    @property
    def is_placed(self) -> bool:
        """Whether it names a patient or a number of an order; else it says what is on a slide's label."""
        return bool(self.patient_id or self.placer_order_number or self.filler_order_number)


class ReceivedOrder(Order):
    """An order that another system sent; what it said of identifiers and names is kept as it was, and repeated so."""

    sender: Text | None = None  # who assigned what names no assigner
    orderer_optional: bool = False  # results may go out without one
    processing_id: Literal["T", "D"] | None = None  # of MSH-11, where results for training or debugging are wanted
    patient_identifiers: list[Identifier] = Field(default_factory=list)
    placer: Identifier | None = None
    filler: Identifier | None = None
    hl7: dict[str, str] = Field(default_factory=dict)  # fields by their place, as PID-3, between HL7's usual separators
    fhir: dict[str, Any] = Field(default_factory=dict)  # elements of the ServiceRequest and what it refers to

    def field(self, place: str) -> str:
        """Give a field of HL7 v2 as it came; nothing where it did not."""
        return self.hl7.get(place, "")


def training_mark(order: Order) -> Literal["T", "D"] | None:
    """Tell whether results of an order are for training or debugging (MSH-11), and no patient's."""
    return order.processing_id if isinstance(order, ReceivedOrder) else None


class Confirmation(StrictModel):
    """The person who vouches for a final or amended result, and since when."""

    name: Text
    organization: Text | None = None
    at: AwareDatetime


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a version of a result stands: who vouches for it, and which versions were before."""

    status: ResultStatus
    confirmed: Confirmation | None = None
    revision: int = 0  # of the review, when it was signed; 0: nobody has
    replaced: tuple[int, ...] = ()  # the revisions of the versions before
    moves: int = 0  # how often a person gave it to another order
    withdrawn: bool = False  # taken back from this order

    @property
    def version(self) -> tuple[int, int]:
        """The version among all of a result: a revision, and how often the result had been moved."""
        return self.revision, self.moves

    def since(self, computed: datetime) -> datetime:
        """Tell when it was confirmed; as long as nobody has, when it was computed."""
        return self.confirmed.at if self.confirmed else computed


def assigner_uri(entity: str, kind: str) -> str | None:
    """Write a universal id, which HL7 v2 and DICOM give with its type (ISO, UUID, DNS ...), as a URI."""
    prefixes = {"ISO": "urn:oid:", "UUID": "urn:uuid:", "GUID": "urn:uuid:", "URI": "", "URL": "", "": ""}
    return f"{prefixes.get(kind.upper(), f'{kind.lower()}:')}{entity}" if entity else None


def split_name(name: str) -> tuple[str, str]:
    """Split "Family, Given" into family and given name; all of it is the family name where there is no comma."""
    family, _, given = name.partition(",")
    return (family.strip(), given.strip()) if family.strip() else (name.strip(), "")
