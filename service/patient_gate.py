"""Whether all who name a slide's patient name the same one: its order, other orders, its header, whoever signed.

Two identifiers can be compared where both are of the same type and assigner; a number that names no assigner is its
sender's. One such pair that differs is a conflict, whatever else agrees. Without any such pair, equal values agree
unless their types or assigners differ; nothing in common is no agreement. Who names nobody is not asked.

Words of a conflict hold no value of a patient: they are shown in lists and logs.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from service.order import Identifier, Order, ReceivedOrder

Verdict = Literal["silent", "agree", "apart", "conflict"]

PREFERRED_TYPES: Final = ("MR", "PI")  # of patients' numbers: a list may hold insurance numbers too


@dataclass(frozen=True, slots=True)
class Statement:
    """What one source says of the slide; `order_id` where it is an order."""

    source: str  # in words: "the slide's header"
    patient: Sequence[Identifier] = ()
    accession_number: str | None = None
    container_id: str | None = None
    order_id: str | None = None


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why a result is held; its key is another one where anything that was compared is."""

    code: Literal["patient-conflict", "accession-conflict", "container-conflict", "second-order", "second-result"]
    detail: str
    key: str
    order_id: str | None = None


def conflicts(order: Order, statements: Sequence[Statement]) -> list[Conflict]:
    """Find where statements do not agree with the order that a result would go out for."""
    return [conflict for statement in statements for conflict in _between(order, statement)]


def second_order(order: Order, order_id: str) -> Conflict:
    """Make the conflict of an order that comes for a slide whose result was told for another one."""
    key = _key("second-order", order_id, identifiers_of(order))
    return Conflict("second-order", "another order for this slide came when its result was told", key, order_id)


def second_result(analysis_id: str) -> Conflict:
    """Make the conflict of a result for whose slide and order another one is signed, as it was analysed again."""
    words = "another result of this slide is signed for this order"
    return Conflict("second-result", words, _key("second-result", analysis_id))


def _between(order: Order, said: Statement) -> list[Conflict]:
    ours = identifiers_of(order)
    found: list[Conflict] = []
    verdict = compare(ours, said.patient)
    if verdict in ("apart", "conflict"):
        words = (
            "names another patient than" if verdict == "conflict" else "has no identifier of the patient in common with"
        )
        key = _key("patient", said.source, said.order_id, ours, said.patient)
        found.append(Conflict("patient-conflict", f"{said.source} {words} the order", key, said.order_id))
    if differ(order.accession_number, said.accession_number):
        key = _key("accession", said.source, order.accession_number, said.accession_number)
        found.append(Conflict("accession-conflict", f"{said.source} is of another accession than the order", key))
    if differ(order.container_id, said.container_id):
        key = _key("container", said.source, order.container_id, said.container_id)
        found.append(Conflict("container-conflict", f"{said.source} is of another slide than the order", key))
    return found


def differ(ours: str | None, theirs: str | None) -> bool:
    """Tell whether both are given and are not the same."""
    return bool(ours and theirs and ours.strip() != theirs.strip())


def compare(ours: Sequence[Identifier], theirs: Sequence[Identifier]) -> Verdict:
    """Judge whether two lists of identifiers are of one patient."""
    ours, theirs = _valid(ours), _valid(theirs)
    if not ours or not theirs:
        return "silent"
    if _contradicts(ours, theirs) or _contradicts(theirs, ours):
        return "conflict"
    return "agree" if any(_same(one, other) for one in ours for other in theirs) else "apart"


def _contradicts(ours: Sequence[Identifier], theirs: Sequence[Identifier]) -> bool:
    """Tell whether others know an identifier of ours, by its type and assigner, with other values only."""
    for one in ours:
        values = {each.value.strip() for each in ours if _comparable(one, each)}
        known = {each.value.strip() for each in theirs if _comparable(one, each)}
        if known and not values & known:
            return True
    return False


def _valid(identifiers: Sequence[Identifier]) -> Sequence[Identifier]:
    """Leave out what does not hold today, unless nothing else is left."""
    today = datetime.now(UTC).date().isoformat()
    return [each for each in identifiers if each.valid_on(today)] or identifiers


def _comparable(one: Identifier, other: Identifier) -> bool:
    return one.type == other.type and _same_assigner(one, other) is True


def _same(one: Identifier, other: Identifier) -> bool:
    types_differ = one.type and other.type and one.type != other.type
    return one.value.strip() == other.value.strip() and not types_differ and _same_assigner(one, other) is not False


def _same_assigner(one: Identifier, other: Identifier) -> bool | None:
    """Tell whether two identifiers have one assigner; None where that was not said."""
    if one.system and other.system:
        return one.system == other.system
    if one.namespace and other.namespace:
        return one.namespace == other.namespace
    return False if one.assigner and other.assigner else None


def identifiers_of(order: Order) -> list[Identifier]:
    """List the patient's identifiers in an order; those that name no assigner are the sender's."""
    if not isinstance(order, ReceivedOrder) or not order.patient_identifiers:
        own = order.patient_id
        return [Identifier(value=own, namespace=order.patient_id_issuer)] if own else []
    sender = order.sender and f"sender {order.sender}"[:255]
    return [
        each if each.assigner or not sender else each.model_copy(update={"namespace": sender})
        for each in order.patient_identifiers
    ]


def preferred(identifiers: Sequence[Identifier], types: Sequence[str] = PREFERRED_TYPES) -> Identifier | None:
    """Choose the identifier to be shown and sent: valid today, of the first type that there is, else the first."""
    valid = _valid(identifiers)
    ranked = [each for kind in types for each in valid if each.type == kind]
    return next(iter([*ranked, *valid]), None)


def _key(*compared: Any) -> str:
    """Make a short name of what was compared."""
    plain = [each if isinstance(each, str | None) else sorted(map(repr, each)) for each in compared]
    return hashlib.sha256(repr(plain).encode()).hexdigest()[:16]
