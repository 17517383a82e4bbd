"""What HL7 v2 orders say: OML^O21 (IHE's LAB-1), OML^O33 and ORM^O01.

    OML^O21, ORM^O01   MSH [PID] { ORC [OBR] { SPM { SAC } } }     each order names its specimens and slides
    OML^O33            MSH [PID] { SPM { SAC } { ORC [OBR] } }     each specimen names its orders

What an order needs: PID-3, ORC-2 (or OBR-2, ORC-3), OBR-16 (or ORC-12), since a result cannot be filed without them;
and the slide's SAC-3, or an accession number: SAC-2, OBR-18, or the laboratory's own number (OBR-3, ORC-3). SAC-4 is
the block. The stain, and what SAC does not say, may come as OBX with the codes that results have
(`service.export.codes`). Of a cancellation, the number is enough. Other segments and fields are not looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from service.export import codes
from service.export.hl7_text import SEX
from service.interop.hl7_message import (
    DATA_TYPE,
    REQUIRED_MISSING,
    SEGMENT_SEQUENCE,
    TABLE_VALUE,
    Message,
    MessageRejected,
    Repetition,
    Segment,
)
from service.order import Order
from service.store.orders import Control, Request, identifier_of
from service.strict import first_error

CONTROLS: Final[dict[str, Control]] = {  # ORC-1, of table 0119
    "NW": "place",
    "XO": "change",
    "RP": "change",
    "XX": "change",
    "CA": "cancel",
    "OC": "cancel",
    "DC": "cancel",
}
SEXES: Final = {letter: sex for sex, letter in SEX.items()} | {"A": "other", "N": "unknown"}
FACTS: Final = {codes.STAIN[0].value: "stain", codes.BLOCK[0].value: "block", codes.CONTAINER[0].value: "container_id"}
MAX_SLIDES: Final = 1000  # of a message


@dataclass
class Specimen:
    """SPM and its SACs; either may be missing."""

    segment: Segment | None = None
    containers: list[Segment] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)


@dataclass
class Group:
    """ORC and OBR, with what belongs to them."""

    control: Segment
    patient: Segment | None
    specimens: list[Specimen]
    detail: Segment | None = None
    facts: dict[str, str] = field(default_factory=dict)

    def text(self, *places: tuple[str, int]) -> str:
        """Give the first of some fields that is not empty, as plain text; places as ("ORC", 2)."""
        return next((found.text() for found in map(self._first, places) if found is not None and found.text()), "")

    def person(self, *places: tuple[str, int]) -> tuple[str, str]:
        """Give identifier and name of the first of some fields that holds either."""
        found = next((each for each in map(self._first, places) if each is not None), None)
        return (found.text(1), _name(found, 2)) if found is not None else ("", "")

    def _first(self, place: tuple[str, int]) -> Repetition | None:
        segment = self.control if place[0] == "ORC" else self.detail
        return next(iter(segment.repetitions(place[1])), None) if segment is not None else None


def read_requests(message: Message, *, by_specimen: bool) -> Sequence[tuple[Group, Request]]:
    """All that a message asks for; `by_specimen`: it is OML^O33. Raises MessageRejected."""
    groups = _groups(message, by_specimen)
    if len(groups) > MAX_SLIDES:
        raise MessageRejected("AE", SEGMENT_SEQUENCE, "ORC", f"more than {MAX_SLIDES} orders")
    return [(group, _request(group)) for group in groups]


def _groups(message: Message, by_specimen: bool) -> list[Group]:
    """Read the orders of a message, in its own order."""
    patient: Segment | None = None
    group: Group | None = None
    shared: list[Specimen] = []  # of the orders that follow, where specimens come first
    found: list[Group] = []
    for segment in message.segments[1:]:
        specimens = group.specimens if group is not None and not by_specimen else shared
        if segment.name == "PID":
            patient = segment
        elif segment.name == "ORC":
            group = Group(segment, patient, shared if by_specimen else [])
            found.append(group)
        elif segment.name == "OBR":
            if group is None:
                raise MessageRejected("AE", SEGMENT_SEQUENCE, "OBR", "OBR without an ORC before it")
            if group.detail is not None:  # several tests under one ORC
                group = Group(group.control, patient, shared if by_specimen else [])
                found.append(group)
            group.detail = segment
        elif segment.name == "SPM":
            if by_specimen:
                group, shared = None, [Specimen(segment)]
            else:
                specimens.append(Specimen(segment))
        elif segment.name == "SAC":
            if not specimens:
                specimens.append(Specimen())
            specimens[-1].containers.append(segment)
        elif segment.name == "OBX" and (name := FACTS.get(segment.text(3))):
            facts = specimens[-1].facts if specimens else group.facts if group is not None else {}
            facts[name] = segment.text(5)
    if not found:
        raise MessageRejected("AE", SEGMENT_SEQUENCE, "ORC", "the message holds no order")
    return found


def _request(group: Group) -> Request:
    control = CONTROLS.get(group.control.text(1).upper())
    if control is None:
        raise MessageRejected("AE", TABLE_VALUE, "ORC-1", f"only {', '.join(CONTROLS)} are understood")
    number = group.text(("ORC", 2), ("OBR", 2), ("ORC", 3), ("OBR", 3))
    if not number:
        raise MessageRejected("AE", REQUIRED_MISSING, "ORC-2", "the order has no number")
    nothing: list[Segment | None] = [None]
    slides = [
        _slide(specimen, container)
        for specimen in group.specimens or [Specimen()]
        for container in specimen.containers or nothing
    ]
    if len(slides) > MAX_SLIDES:
        raise MessageRejected("AE", SEGMENT_SEQUENCE, "SAC", f"more than {MAX_SLIDES} slides")
    common = _common(group)
    orders = tuple(_order(common, slide) for slide in slides)
    if control != "cancel":
        for order in orders:
            _require(order)
    return Request(control, number[:255], orders)


def _require(order: Order) -> None:
    """Read what no result can do without."""
    needed = {
        "PID-3": order.patient_id,
        "OBR-16": order.ordering_provider or order.ordering_provider_id,
        "SAC-3": identifier_of(order),
    }
    for place, value in needed.items():
        if not value:
            raise MessageRejected("AE", REQUIRED_MISSING, place, f"{place} must not be empty")


def _order(common: dict[str, Any], slide: dict[str, str]) -> Order:
    accession = slide.get("accession_number") or common["accession_number"]
    facts = common | slide | {"accession_number": accession}
    try:
        return Order.model_validate({name: value for name, value in facts.items() if value})
    except ValidationError as error:
        raise MessageRejected("AE", DATA_TYPE, "ORC", ": ".join(first_error(error))) from error


def _common(group: Group) -> dict[str, Any]:
    """Read what holds for all slides of an order."""
    provider_id, provider = group.person(("OBR", 16), ("ORC", 12))
    return {
        "accession_number": group.text(("OBR", 18), ("OBR", 3), ("ORC", 3)),
        "ordering_provider": provider,
        "ordering_provider_id": provider_id,
        "placer_order_number": group.text(("ORC", 2), ("OBR", 2)),
        "filler_order_number": group.text(("ORC", 3), ("OBR", 3)),
        "service": _service(group),
        **_patient(group.patient),
        **{name: value for name, value in group.facts.items() if value},
    }


def _service(group: Group) -> dict[str, str] | None:
    found = group.detail.repetitions(4) if group.detail is not None else []
    code = found[0].text(1) if found else ""
    return {"code": code, "text": found[0].text(2) or code, "system": found[0].text(3) or "L"} if code else None


def _patient(segment: Segment | None) -> dict[str, Any]:
    if segment is None:
        return {}
    identifiers = segment.repetitions(3)
    # PI: internal to the laboratory's system, MR: medical record; a list may hold insurance numbers too
    by_type = {kind: each for each in reversed(identifiers) if (kind := each.text(5))}
    chosen = by_type.get("PI") or by_type.get("MR") or next(iter(identifiers), None)
    name = next(iter(segment.repetitions(5)), None)
    return {
        "patient_id": chosen and chosen.text(1),
        "patient_id_issuer": chosen and chosen.text(4),
        "patient_name": name and _name(name, 1),
        "patient_birth_date": _day(segment.text(7)),
        "patient_sex": SEXES.get(segment.text(8).upper()),
    }


def _slide(specimen: Specimen, container: Segment | None) -> dict[str, str]:
    facts = dict(specimen.facts)
    if specimen.segment is not None and (found := specimen.segment.repetitions(2)):
        facts["specimen_id"] = found[0].text(2) or found[0].text(1)  # the laboratory's, else the orderer's
    if container is not None:
        said = {"accession_number": container.text(2), "container_id": container.text(3), "block": container.text(4)}
        facts |= {name: value for name, value in said.items() if value}
    return {name: value for name, value in facts.items() if value}


def _name(person: Repetition, first: int) -> str:
    """ "Family, Given" of a name whose family name is that component."""
    family, given = person.text(first), person.text(first + 1)
    return ", ".join((family, given)) if family and given else family or given


def _day(text: str) -> str | None:
    """Read a date in full; None for less, which some systems send of the unborn and the unknown."""
    try:
        return datetime.strptime(text[:8], "%Y%m%d").date().isoformat()
    except ValueError:
        return None
