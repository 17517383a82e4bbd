"""Identifiers and names in HL7 v2 fields (CX, EI, XPN), with all that was said of them; which of several is meant."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from service.export.hl7_text import SEX
from service.interop.hl7_message import DATA_TYPE, MessageRejected, Repetition, Segment
from service.interop.lis_mapping import Sender
from service.order import MAX_IDENTIFIERS, Identifier, assigner_uri
from service.patient_gate import preferred
from service.strict import first_error

SEXES: Final = {letter: sex for sex, letter in SEX.items()} | {"A": "other", "N": "unknown"}


def patient_of(segment: Segment | None, sender: Sender) -> dict[str, Any]:
    """Read PID as its sender means it. Raises MessageRejected."""
    if segment is None:
        return {}
    place = sender.patient
    numbers = segment.repetitions(int(place[-1]))
    if len(numbers) > MAX_IDENTIFIERS:
        raise MessageRejected("AE", DATA_TYPE, place, f"more than {MAX_IDENTIFIERS} identifiers of a patient")
    read = [_patient_number(place, each) for each in numbers]
    identifiers = [sender.assigned(each) for each in read if each is not None]
    chosen = preferred(identifiers, sender.identifier_types)
    name = chosen_name(segment.repetitions(5), sender.name_types)
    return {
        "patient_identifiers": identifiers,
        "patient_id": chosen and chosen.value,
        "patient_id_issuer": chosen and (chosen.namespace or chosen.system),
        "patient_name": name and name_of(name, 1),
        "patient_birth_date": day(segment.text(7)),
        "patient_sex": SEXES.get(segment.text(8).upper()),
    }


def _patient_number(place: str, repetition: Repetition) -> Identifier | None:
    """Read CX; None where it holds no number."""
    namespace, entity, kind = (repetition.text(4, number) for number in (1, 2, 3))
    facts = {"namespace": namespace, "system": assigner_uri(entity, kind), "type": repetition.text(5)}
    days = {"valid_from": day(repetition.text(7)), "valid_to": day(repetition.text(8))}
    return _identifier(place, repetition.text(1), facts | days)


def order_number(place: str, repetition: Repetition | None) -> Identifier | None:
    """Read EI; None where it holds no number. Raises MessageRejected."""
    if repetition is None:
        return None
    value, namespace, entity, kind = (repetition.text(number) for number in (1, 2, 3, 4))
    return _identifier(place, value, {"namespace": namespace, "system": assigner_uri(entity, kind)})


def _identifier(place: str, value: str, facts: dict[str, str | None]) -> Identifier | None:
    if not value:
        return None
    try:
        return Identifier.model_validate({"value": value} | {name: each for name, each in facts.items() if each})
    except ValidationError as error:
        raise MessageRejected("AE", DATA_TYPE, place, ": ".join(first_error(error))) from error


def chosen_name(names: Sequence[Repetition], types: Sequence[str]) -> Repetition | None:
    """Choose the name to be used of several (XPN): valid today and legal; aliases and maiden names come last."""
    today = datetime.now(UTC).date().isoformat()

    def rank(name: Repetition) -> tuple[bool, int]:
        kind, until = name.text(7).upper(), day(name.text(13))
        return (until is not None and until < today, types.index(kind) if kind in types else len(types))

    return min(names, key=rank, default=None)


def name_of(person: Repetition, first: int) -> str:
    """Write "Family, Given" of a name whose family name is that component."""
    family, given = person.text(first, 1), person.text(first + 1)
    return ", ".join((family, given)) if family and given else family or given


def day(text: str) -> str | None:
    """Read a date in full; None for less, which some systems send of the unborn and the unknown."""
    try:
        return datetime.strptime(text[:8], "%Y%m%d").date().isoformat()
    except ValueError:
        return None
