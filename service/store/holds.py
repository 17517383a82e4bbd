"""Results that are held because not everybody names the same patient, and what a person decides about them.

`judge` is asked in the transaction that changes what is known: a slide is matched, an order comes, a person signs.
What it finds holds the result: nothing of it is sent over any channel. It only ever adds; a hold ends by `release` or
`assign`, which a person asks for, with a reason. What was decided is not asked again, unless something in it changes.

A result that is given to another order is taken back first wherever it was told, as it was told there. Whoever signed
it has signed for the patient before: the signature is void.
"""

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, and_, case, func, insert, select, update

from service.order import Identifier, Order, ReceivedOrder
from service.patient_gate import Conflict, Statement, conflicts, identifiers_of, second_result
from service.readings import OWN
from service.refusals import HoldChanged, NotFound
from service.review import Reviewer
from service.slide_label import SlideLabel
from service.store import audit, outbox
from service.store.database import analyses, fetch, orders, review_entries, writing
from service.store.records import folded

NO_ORDER = Order()
ACTIVE: Final = ("waiting", "matched")  # orders that results may go out for


def carried_order(request: dict[str, Any]) -> Order:
    """Read the order that an analysis goes out for; an empty one where there is none."""
    told = {name: value for name, value in (request.get("order") or {}).items() if value is not None}
    return ReceivedOrder.model_validate(told) if told else NO_ORDER


def completed(uploaded: dict[str, Any] | None, order: ReceivedOrder) -> dict[str, Any]:
    """Complete an order by what an upload said of the slide itself; of patient and orderer only the order speaks."""
    known = {name: (uploaded or {}).get(name) for name in ("container_id", "block", "stain", "accession_number")}
    told = {name: value for name, value in known.items() if value is not None}
    return ReceivedOrder.model_validate(told | order.model_dump(exclude_none=True)).model_dump(mode="json")


def judge(connection: Connection, analysis_id: str, *, also: Iterable[Conflict] = ()) -> None:
    """Hold an analysis' result where who names its patient does not agree; what holds it already stays."""
    row = _locked(connection, analysis_id)
    order = carried_order(row.request)
    accepted, before = set(row.accepted or ()), _reasons(row)
    found = [*_conflicts(connection, row, order), *also] if order != NO_ORDER else also
    reasons = before | {each.key: asdict(each) for each in found if each.key not in accepted}
    if reasons.keys() != before.keys():
        name = hashlib.sha256(" ".join((analysis_id, *sorted(reasons))).encode()).hexdigest()[:12]
        since = row.held["since"] if row.held else time.time()
        held = {"id": name, "since": since, "reasons": list(reasons.values())}
        connection.execute(update(analyses).where(analyses.c.id == analysis_id).values(held=held))
        codes = sorted({each["code"] for each in reasons.values()})
        audit.record(connection, row.tenant, "patient gate", "hold_result", analysis_id, hold=name, reasons=codes)


def _conflicts(connection: Connection, row: Row[Any], order: Order) -> list[Conflict]:
    """Find why a result should not go out for an order: who names the patient, and what is signed for it already."""
    same_slide = analyses.c.slide_id == row.slide_id
    if order.container_id and order.container_id == row.slide_identifier:  # scanned again; a case has many slides
        same_slide |= analyses.c.slide_identifier == order.container_id
    same_order = and_(analyses.c.tenant == row.tenant, analyses.c.order_id.is_not_distinct_from(row.order_id))
    others = select(analyses.c.id).where(same_order, same_slide, analyses.c.signed.is_(True), analyses.c.id != row.id)
    signed = connection.scalars(others.order_by(analyses.c.id)).all()
    return [*conflicts(order, _statements(connection, row)), *map(second_result, signed)]


def _locked(connection: Connection, analysis_id: str) -> Row[Any]:
    row = connection.execute(select(analyses).where(analyses.c.id == analysis_id).with_for_update()).one_or_none()
    if row is None:
        raise NotFound(f"there is no analysis {analysis_id[:64]}")
    return row


def _statements(connection: Connection, row: Row[Any]) -> list[Statement]:
    """Collect what everybody but the order itself says."""
    label = SlideLabel.model_validate(row.label or {})
    found = [Statement("the slide's header", label.patient, label.accession_number, label.container_id)]
    if row.uploaded_order:
        uploaded = Order.model_validate(row.uploaded_order)
        numbers = (uploaded.accession_number, uploaded.container_id)
        found.append(Statement("the slide's upload", identifiers_of(uploaded), *numbers))
    if (signed := signed_for(connection, row.id)) is not None:
        found.append(Statement("the person who signed", signed))
    for each in orders_of_slide(connection, row.tenant, row.slide_identifier):
        is_own = each.id == row.order_id
        if is_own or each.processing_id == "P":  # an order for training holds nobody's result
            said = identifiers_of(ReceivedOrder.model_validate(each.order))
            who = "the order's last message" if is_own else "another order"
            found.append(Statement(who, said, order_id=each.id))
    return found


def signed_for(connection: Connection, analysis_id: str) -> list[Identifier] | None:
    """List the patient's identifiers that the valid signature was given for; None where there is none."""
    revision = outbox.signed_revision(connection, analysis_id)
    signed = and_(review_entries.c.analysis_id == analysis_id, review_entries.c.revision == revision)
    row = connection.execute(select(review_entries.c.patient).where(signed)).one_or_none()
    return None if row is None else [Identifier.model_validate(each) for each in row.patient or ()]


def orders_of_slide(connection: Connection, tenant: str, identifier: str | None) -> Sequence[Row[Any]]:
    """List the active orders for a slide, the newest first; those for training whose results are wanted come last."""
    if identifier is None:
        return ()
    which = and_(orders.c.tenant == tenant, orders.c.identifier == identifier, orders.c.status.in_(ACTIVE))
    rows = connection.execute(select(orders).where(which).order_by(orders.c.updated_at.desc())).all()
    wanted = [row for row in rows if row.processing_id != "P" and row.order.get("processing_id")]
    return [*(row for row in rows if row.processing_id == "P"), *wanted]


def held_results(engine: Engine) -> Sequence[Row[Any]]:
    """List the analyses of all tenants whose results are held, oldest first."""
    return fetch(engine, select(analyses).where(analyses.c.held.is_not(None)).order_by(analyses.c.created_at))


def find_held(engine: Engine, hold: str) -> Row[Any]:
    """Find the analysis that a hold is of. Raises NotFound."""
    for row in held_results(engine):
        if row.held["id"] == hold:
            return row
    raise NotFound(f"nothing is held as {hold[:64]}")


def learn_label(engine: Engine, analysis_id: str, label: SlideLabel) -> None:
    """Keep what the header of a slide says that came before headers were read, and judge it."""
    with writing(engine) as connection:
        said = label.model_dump(mode="json", exclude_defaults=True)
        connection.execute(update(analyses).where(analyses.c.id == analysis_id).values(label=said))
        judge(connection, analysis_id)


# What a person decides


def release(engine: Engine, analysis_id: str, tenant: str, hold: str, by: Reviewer, reason: str) -> None:
    """Let a held result go out for the order that it has. Raises NotFound, HoldChanged."""
    with writing(engine) as connection:
        row = _decidable(connection, analysis_id, tenant, hold)
        _accept(connection, row)
        judge(connection, analysis_id)
        _record(connection, row, "release_result", by, reason)


def assign(
    engine: Engine, analysis_id: str, tenant: str, order_id: str, hold: str | None, by: Reviewer, reason: str
) -> None:
    """Give a result to another order: taken back where it was told, then told anew, unsigned.

    Raises NotFound, HoldChanged.
    """
    with writing(engine) as connection:
        row = _decidable(connection, analysis_id, tenant, hold)
        which = and_(orders.c.tenant == tenant, orders.c.id == order_id, orders.c.status.in_(ACTIVE))
        target = connection.execute(select(orders).where(which, orders.c.processing_id == "P")).one_or_none()
        if target is None:
            raise NotFound(f"there is no order {order_id[:64]} that a result could be given to")
        outbox.withdraw(connection, row)
        _void_signature(connection, row, by, reason)
        give(connection, row, target, moved=True)
        _free_order(connection, row.order_id)
        now = _locked(connection, analysis_id)
        _accept(connection, row, _conflicts(connection, now, carried_order(now.request)))
        if row.status == "succeeded":
            outbox.announce_again(connection, analysis_id, tenant)
        _record(connection, row, "assign_result", by, reason, order=order_id, order_before=row.order_id)


def _accept(connection: Connection, row: Row[Any], more: Sequence[Conflict] = ()) -> None:
    """End a hold: its reasons, and those that a person knows beside, are not asked again."""
    keys = {*(row.accepted or ()), *_reasons(row), *(each.key for each in more)}
    mine = update(analyses).where(analyses.c.id == row.id)
    connection.execute(mine.values(held=None, accepted=sorted(keys)))


def _reasons(row: Row[Any]) -> dict[str, dict[str, Any]]:
    """List what holds a result, by key."""
    return {each["key"]: each for each in row.held["reasons"]} if row.held else {}


def _void_signature(connection: Connection, row: Row[Any], by: Reviewer, reason: str) -> None:
    """Make a signature void, which is of the patient that it was given for; the decisions stay."""
    signed = outbox.signed_revision(connection, row.id)
    if not signed:
        return
    mine = review_entries.c.analysis_id == row.id
    last = connection.execute(select(func.max(review_entries.c.revision)).where(mine)).scalar_one()
    entry = {"analysis_id": row.id, "revision": last + 1, "action": "void", "reason": reason, "at": time.time()}
    entry |= {"reviewer": by.name, "organization": by.organization}  # the audit log has the key
    connection.execute(insert(review_entries).values(**entry))
    readings = case((analyses.c.signed_readings > len(OWN), len(OWN)), else_=analyses.c.signed_readings)
    void = {"signed": False, "signed_readings": readings, "summary": None}
    connection.execute(update(analyses).where(analyses.c.id == row.id).values(**void))
    _record(connection, row, "void_signature", by, reason, revision=signed)


def give(connection: Connection, analysis: Row[Any], order: Row[Any], *, moved: bool = False) -> None:
    """Let an analysis' result go out for an order."""
    carried = completed(analysis.uploaded_order, ReceivedOrder.model_validate(order.order))
    values = {"request": analysis.request | {"order": carried}, "order_id": order.id}
    number = carried["accession_number"]
    values |= {"accession_number": number, "accession_folded": folded(number), "patient_id": carried["patient_id"]}
    values |= {"moves": analysis.moves + moved}
    connection.execute(update(analyses).where(analyses.c.id == analysis.id).values(**values))
    connection.execute(update(orders).where(orders.c.id == order.id).values(status="matched", updated_at=time.time()))


def _free_order(connection: Connection, order_id: str | None) -> None:
    """Let an order wait for its slide again, if no other analysis is for it."""
    others = select(analyses.c.id).where(analyses.c.order_id == order_id)
    unused = update(orders).where(orders.c.id == order_id, orders.c.status == "matched", ~others.exists())
    connection.execute(unused.values(status="waiting"))


def _decidable(connection: Connection, analysis_id: str, tenant: str, hold: str | None) -> Row[Any]:
    """Find what a person decides about; nobody decides about what they have not seen."""
    row = _locked(connection, analysis_id)
    if row.tenant != tenant:
        raise NotFound(f"there is no analysis {analysis_id[:64]}")
    if (row.held["id"] if row.held else None) != hold:
        raise HoldChanged("what holds this result is not what was decided about; look again, nothing was changed")
    return row


def _record(connection: Connection, row: Row[Any], action: str, by: Reviewer, reason: str, **more: Any) -> None:
    facts = {"reviewer": by.name, "organization": by.organization, "reason": reason, **more}
    facts["conflicts"] = [each["code"] for each in _reasons(row).values()]
    audit.record(connection, row.tenant, by.key_id or audit.NOBODY, action, row.id, **facts)
