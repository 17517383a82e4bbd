"""What HL7 v2 orders say: OML^O21 (IHE's LAB-1), OML^O33 and ORM^O01.

    OML^O21, ORM^O01   MSH [PID] { ORC [OBR] { SPM { SAC } } }     each order names its specimens and slides
    OML^O33            MSH [PID] { SPM { SAC } { ORC [OBR] } }     each specimen names its orders

What an order needs: PID-3, ORC-2 (or OBR-2, ORC-3), OBR-16 (or ORC-12), since a result cannot be filed without them;
and the slide's SAC-3, or an accession number: SAC-2 or OBR-18. The laboratory's own order number (OBR-3, ORC-3) is
none: it may be any test's. SAC-4 is the block. The stain, and what SAC does not say, may come as OBX with the codes
that results have (`service.export.codes`). Of a cancellation, or a question how an order stands (SC, SS), the number is
enough. Other segments and fields are not looked at. Senders that write it elsewhere are described in a mapping
(`service.interop.lis_mapping`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from service.export import codes
from service.interop.hl7_identifiers import name_of, order_number, patient_of
from service.interop.hl7_message import (
    DATA_TYPE,
    REQUIRED_MISSING,
    SEGMENT_SEQUENCE,
    TABLE_VALUE,
    Message,
    MessageRejected,
    Segment,
)
from service.interop.hl7_prior_results import without_prior_results
from service.interop.lis_mapping import STANDARD, Sender, find, text_at
from service.order import Identifier, ReceivedOrder
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
    "SC": "status",
    "SS": "status",
}
KEPT: Final = (  # results repeat them
    *(("PID", 3), ("PID", 5), ("ORC", 2), ("ORC", 3), ("ORC", 4), ("ORC", 12)),
    *(("OBR", 2), ("OBR", 3), ("OBR", 4), ("OBR", 7), ("OBR", 16), ("SPM", 2), ("SPM", 17)),
)
FACTS: Final = {codes.STAIN[0].value: "stain", codes.BLOCK[0].value: "block", codes.CONTAINER[0].value: "container_id"}
TAKEN_BACK: Final = ("D", "W", "X")  # OBX-11, of table 0085
IN_PARTS: Final = "a message, or a segment, in several parts is not read"
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

    def identifier(self, *places: tuple[str, int]) -> Identifier | None:
        """Give the first of some numbers that there is, with its assigner. Raises MessageRejected."""
        for name, number in places:
            segment = self.control if name == "ORC" else self.detail
            if segment and (found := order_number(f"{name}-{number}", segment.only(number))):
                return found
        return None

    def segments(self, specimen: Segment | None = None, container: Segment | None = None) -> dict[str, Segment | None]:
        """Give all segments of one slide by their names."""
        named = {"PID": self.patient, "ORC": self.control, "OBR": self.detail}
        return named | {"SPM": specimen, "SAC": container}


def read_requests(
    message: Message, sender: str, mapping: Sender = STANDARD, *, by_specimen: bool
) -> Sequence[tuple[Group, Request]]:
    """All that a message of a sender asks for; `by_specimen`: it is OML^O33. Raises MessageRejected."""
    if message.header.text(14):
        raise MessageRejected("AE", SEGMENT_SEQUENCE, "MSH-14", IN_PARTS)
    groups = _groups(without_prior_results(message.segments[1:], mapping, by_specimen=by_specimen), by_specimen)
    if len(groups) > MAX_SLIDES:
        raise MessageRejected("AE", SEGMENT_SEQUENCE, "ORC", f"more than {MAX_SLIDES} orders")
    return [(group, _request(group, sender, mapping)) for group in groups]


def _groups(segments: Sequence[Segment], by_specimen: bool) -> list[Group]:
    """Read the orders of a message, in its own order."""
    patient: Segment | None = None
    group: Group | None = None
    shared: list[Specimen] = []  # of the orders that follow, where specimens come first
    found: list[Group] = []
    for segment in segments:
        specimens = group.specimens if group is not None and not by_specimen else shared
        if segment.name in ("SPM", "SAC") and found and group is None and not by_specimen:
            raise MessageRejected("AE", SEGMENT_SEQUENCE, segment.name, f"{segment.name} without an ORC before it")
        if segment.name == "PID":
            patient, group, shared = segment, None, []  # nothing that was said before it is of this patient
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
            _learn(specimens[-1].facts if specimens else group.facts if group is not None else {}, name, segment)
        elif segment.name == "ADD" or (segment.name == "DSC" and segment.text(1)):
            raise MessageRejected("AE", SEGMENT_SEQUENCE, segment.name, IN_PARTS)
    if not found:
        raise MessageRejected("AE", SEGMENT_SEQUENCE, "ORC", "the message holds no order")
    return found


def _learn(facts: dict[str, str], name: str, observed: Segment) -> None:
    """Take a fact from an OBX, unless it is taken back there. Raises MessageRejected for a second, other one."""
    text = observed.text(5)
    if observed.text(11).upper() in TAKEN_BACK or not text:
        return
    if facts.setdefault(name, text) != text:
        raise MessageRejected("AE", DATA_TYPE, "OBX-5", f"two values of {name}: which one is meant, is not clear")


def _request(group: Group, sender: str, mapping: Sender) -> Request:
    control = CONTROLS.get(group.control.text(1).upper())
    if control is None:
        raise MessageRejected("AE", TABLE_VALUE, "ORC-1", f"only {', '.join(CONTROLS)} are understood")
    number = group.identifier(("ORC", 2), ("OBR", 2), ("ORC", 3), ("OBR", 3))
    if number is None:
        raise MessageRejected("AE", REQUIRED_MISSING, "ORC-2", "the order has no number")
    nothing: list[Segment | None] = [None]
    slides = [(each, container) for each in group.specimens or [Specimen()] for container in each.containers or nothing]
    if len(slides) > MAX_SLIDES:
        raise MessageRejected("AE", SEGMENT_SEQUENCE, "SAC", f"more than {MAX_SLIDES} slides")
    common = _common(group, mapping) | {"sender": sender[:255]}
    orders = tuple(_order(common | _slide(group, *slide, mapping)) for slide in slides)
    if control not in ("cancel", "status"):
        for order in orders:
            _require(order, mapping)
    return Request(control, number.value, orders, mapping.assigned(number).assigner)


def _require(order: ReceivedOrder, mapping: Sender) -> None:
    """Read what no result can do without."""
    orderer = order.ordering_provider or order.ordering_provider_id or order.orderer_optional
    slide = next(iter(mapping.slide or mapping.accession), "SAC-3")
    needed = {mapping.patient: order.patient_id, "OBR-16": orderer, slide: identifier_of(order)}
    for place, value in needed.items():
        if not value:
            name = re.split("[.;]", place)[0]
            raise MessageRejected("AE", REQUIRED_MISSING, name, f"{place} must not be empty")


def _order(facts: dict[str, Any]) -> ReceivedOrder:
    try:
        return ReceivedOrder.model_validate({name: value for name, value in facts.items() if value})
    except ValidationError as error:
        raise MessageRejected("AE", DATA_TYPE, "ORC", ": ".join(first_error(error))) from error


def _common(group: Group, mapping: Sender) -> dict[str, Any]:
    """Read what holds for all slides of an order."""
    provider = find(mapping.provider, group.segments())
    placer, filler = group.identifier(("ORC", 2), ("OBR", 2)), group.identifier(("ORC", 3), ("OBR", 3))
    return {
        "ordering_provider": provider and name_of(provider, 2),
        "ordering_provider_id": provider and provider.text(1),
        "orderer_optional": mapping.provider_optional,
        "placer": placer,
        "filler": filler,
        "placer_order_number": placer and placer.value,
        "filler_order_number": filler and filler.value,
        "service": _service(group),
        **patient_of(group.patient, mapping),
        **{name: value for name, value in group.facts.items() if value},
    }


def _service(group: Group) -> dict[str, str] | None:
    found = group.detail.repetitions(4) if group.detail is not None else []
    code = found[0].text(1) if found else ""
    return {"code": code, "text": found[0].text(2) or code, "system": found[0].text(3) or "L"} if code else None


def _slide(group: Group, specimen: Specimen, container: Segment | None, mapping: Sender) -> dict[str, Any]:
    """Read what is said of one slide, and keep the fields that results repeat."""
    segments = group.segments(specimen.segment, container)
    places = {"accession_number": mapping.accession, "container_id": mapping.slide}
    places |= {"block": mapping.block, "stain": mapping.stain}
    said = specimen.facts | {
        name: told for name, each in places.items() if (told := text_at(each, segments, identifies=name != "stain"))
    }
    if specimen.segment is not None and (found := specimen.segment.repetitions(2)):
        said["specimen_id"] = found[0].text(2, 1) or found[0].text(1, 1)  # the laboratory's, else the orderer's
    return {**said, "hl7": _kept(segments, int(mapping.patient[-1]))}


def _kept(segments: dict[str, Segment | None], patient: int) -> dict[str, str]:
    """Give the fields that results repeat, as they came; the patient's identifiers are PID-3's there."""
    kept: dict[str, str] = {}
    for name, number in KEPT:
        segment = segments[name]
        if segment and (written := segment.standard(patient if (name, number) == ("PID", 3) else number)):
            kept[f"{name}-{number}"] = written
    return kept
