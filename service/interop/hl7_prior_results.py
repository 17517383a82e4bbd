"""Results of earlier orders, which OML^O21 and OML^O33 may hold after each order: they are no orders, and left out.

    { ORC OBR { SPM { SAC } } { [PID] { [ORC] OBR { OBX } } } }      the last braces: prior results; ORC-1 is PR

Their OBX would be read as the ordered slide's facts, their OBR as one more test of the order, and their PID, which may
be a mother's, as the patient of the orders that follow. Without ORC they are known by OBR-25, that of a result.
"""

from collections.abc import Sequence
from typing import Final

from service.interop.hl7_identifiers import patient_of
from service.interop.hl7_message import SEGMENT_SEQUENCE, MessageRejected, Segment
from service.interop.lis_mapping import Sender
from service.patient_gate import compare

PRIOR: Final = "PR"  # ORC-1, of table 0119
REPORTED: Final = ("A", "C", "F", "P", "R")  # OBR-25, of table 0123: there are results
ORDERS: Final = ("PID", "ORC", "OBR", "SPM", "SAC")


def without_prior_results(segments: Sequence[Segment], sender: Sender, *, by_specimen: bool) -> list[Segment]:
    """Leave out prior results. Raises MessageRejected where what follows them could be another patient's or order's."""
    kept: list[Segment] = []
    patient: Segment | None = None
    ordered = prior = foreign = False  # a test under this ORC; within a prior result; of somebody else
    for place, segment in enumerate(segments):
        if segment.name == "PID":
            prior = patient is not None and _begins_prior(segments, place)
            foreign = prior and not _same_patient(patient, segment, sender)
            patient = patient if prior else segment
        elif segment.name == "ORC":
            ordered, prior = False, _is_prior(segment)
            if foreign and not prior:
                raise MessageRejected("AE", SEGMENT_SEQUENCE, "PID", "an order after a prior result of another patient")
        elif segment.name == "OBR":
            prior = prior or (ordered and _is_prior(segment))
            ordered = True
        elif segment.name in ("SPM", "SAC") and prior:
            if not by_specimen:
                raise MessageRejected("AE", SEGMENT_SEQUENCE, segment.name, f"{segment.name} after a prior result")
            prior = False
        if not prior:
            kept.append(segment)
    return kept


def _begins_prior(segments: Sequence[Segment], place: int) -> bool:
    """Tell whether the PID at a place is of a prior result, by what follows it."""
    following = (segments[number] for number in range(place + 1, len(segments)))
    first = next((each for each in following if each.name in ORDERS), None)
    return first is not None and _is_prior(first)


def _is_prior(segment: Segment) -> bool:
    """Tell whether an ORC, or an OBR that has none of its own, is of a prior result."""
    if segment.name == "ORC":
        return segment.text(1).upper() == PRIOR
    return segment.name == "OBR" and segment.text(25).upper() in REPORTED


def _same_patient(patient: Segment | None, other: Segment, sender: Sender) -> bool:
    ours, theirs = (patient_of(each, sender).get("patient_identifiers", []) for each in (patient, other))
    return compare(ours, theirs) == "agree"
