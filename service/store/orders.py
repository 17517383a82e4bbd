"""Orders and slides find each other, whichever comes first, by what is written on the slide's label.

    placed --> waiting --> matched       (a slide with the identifier is analysed; more may follow)
                  '------> cancelled     (never once its slide has come: then a person must decide)

The identifier is the container's, else the accession number. A slide's comes with its upload's order, or from its file
name by a pattern. An order is known by its number and identifier, so that a message that says the same twice changes
nothing; what was sent before the last thing that is known of an order, by its sender's clock, is refused as stale.
Every analysis of a slide carries its order: results that are there already are announced again.
"""

import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Row, and_, delete, func, insert, select, update

from service.errors import SettingsInvalid
from service.order import Order
from service.refusals import NotFound
from service.store import outbox
from service.store.database import analyses, hold_lock, messages, orders, reading

Control = Literal["place", "change", "cancel"]
Outcome = Literal["placed", "changed", "cancelled", "stale", "too-late", "unknown"]
FOUND = ("queued", "running", "succeeded")  # analyses that an order is for


@dataclass(frozen=True, slots=True)
class Request:
    """The part of a message about one order: its number, and what is asked for of each slide."""

    control: Control
    number: str
    orders: tuple[Order, ...]


@dataclass(frozen=True, slots=True)
class Sent:
    """The origin of a request: `at` is the sender's time (Unix seconds; 0: it did not say)."""

    tenant: str
    source: Literal["hl7", "fhir"]
    message: str
    at: float = 0.0


def identifier_of(order: Order) -> str | None:
    """Return what is on the label of the slide that an order is for."""
    return order.container_id or order.accession_number


def check_pattern(pattern: str) -> re.Pattern[str] | None:
    """Compile the pattern of file names; None for none. Raises SettingsInvalid where it has no group `id`."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SettingsInvalid(f"MITOSIS_SLIDE_ID_PATTERN is no regular expression: {error}") from error
    if pattern and "id" not in compiled.groupindex:
        raise SettingsInvalid("MITOSIS_SLIDE_ID_PATTERN has no group (?P<id>...)")
    return compiled if pattern else None


def slide_identifier(order: Order | None, name: str, pattern: str) -> str | None:
    """Find what is on a slide's label, as far as its upload says it."""
    if order is not None and order.container_id:
        return order.container_id
    compiled = check_pattern(pattern)
    if compiled is not None and (match := compiled.search(name)) and match["id"]:
        return str(match["id"])[:255]
    return None if order is None else order.accession_number


def take(connection: Connection, sent: Sent, request: Request) -> Outcome:
    """Do what a message asks, once; an order that is placed finds the analyses of its slide."""
    lock(connection, sent.tenant)
    mine = and_(orders.c.tenant == sent.tenant, orders.c.number == request.number)
    known = connection.execute(select(orders).where(mine)).all()
    named = {identifier_of(order) or "": order for order in request.orders}
    about = [row for row in known if not row.identifier or not named.keys() - {""} or row.identifier in named]
    if sent.at and any(row.sent_at > sent.at for row in about):
        return "stale"
    if request.control == "cancel":
        return _cancel(connection, sent, request, about)
    rows = {row.identifier: row for row in known}
    others = [row for row in known if row.identifier not in named] if request.control == "change" else []
    if any(row.status == "matched" for row in others):  # a change names all slides of its order
        return "too-late"
    for identifier, order in named.items():
        _put(connection, sent, request.number, identifier, order, rows.get(identifier))
    _set_cancelled(connection, sent, [row for row in others if row.status == "waiting"])
    return "changed" if request.control == "change" else "placed"


def order_for(connection: Connection, tenant: str, identifier: str) -> Order | None:
    """Match a slide that has come with its newest order, if there is one."""
    lock(connection, tenant)
    which = and_(orders.c.tenant == tenant, orders.c.identifier == identifier, orders.c.status != "cancelled")
    row = connection.execute(select(orders).where(which).order_by(orders.c.updated_at.desc()).limit(1)).first()
    if row is None:
        return None
    matched = {"status": "matched", "updated_at": time.time()}
    connection.execute(update(orders).where(orders.c.id == row.id).values(**matched))
    return Order.model_validate(row.order)


def merged(given: dict[str, Any] | None, order: Order) -> dict[str, Any]:
    """Merge what an upload said of its order with what the laboratory's system says, which overrules it."""
    told = {name: value for name, value in (given or {}).items() if value is not None}
    return Order.model_validate(told | order.model_dump(exclude_none=True)).model_dump(mode="json")


def find(engine: Engine, tenant: str, order_id: str) -> Sequence[Row[Any]]:
    """Find an order by the id of any of its rows. Raises NotFound."""
    with reading(engine) as connection:
        which = and_(orders.c.tenant == tenant, orders.c.id == order_id)
        row = connection.execute(select(orders).where(which)).one_or_none()
        if row is None:
            raise NotFound(f"there is no order {order_id[:64]}")
        return rows_of(connection, tenant, row.number)


def rows_of(connection: Connection, tenant: str, number: str) -> Sequence[Row[Any]]:
    """Find an order by its number, a row for each slide; those that are cancelled come last."""
    which = and_(orders.c.tenant == tenant, orders.c.number == number)
    cancelled = orders.c.status == "cancelled"
    return connection.execute(select(orders).where(which).order_by(cancelled, orders.c.created_at, orders.c.id)).all()


def waiting(engine: Engine, tenant: str) -> Sequence[Row[Any]]:
    """List orders whose slide has not come, oldest first."""
    which = and_(orders.c.tenant == tenant, orders.c.status == "waiting")
    with reading(engine) as connection:
        return connection.execute(select(orders).where(which).order_by(orders.c.created_at)).all()


def count_waiting(engine: Engine) -> int:
    """Count the orders that wait for their slide."""
    which = select(func.count()).select_from(orders).where(orders.c.status == "waiting")
    with reading(engine) as connection:
        return int(connection.execute(which).scalar_one())


def forget(connection: Connection, before: float) -> None:
    """Delete orders and answered messages that nothing has happened to since a time (Unix seconds)."""
    connection.execute(delete(orders).where(orders.c.updated_at < before, orders.c.status != "waiting"))
    connection.execute(delete(messages).where(messages.c.created_at < before))


def lock(connection: Connection, tenant: str) -> None:
    """Let in one at a time of those who look for an order or for its slide, until the transaction ends."""
    hold_lock(connection, f"orders:{tenant}")


def _cancel(connection: Connection, sent: Sent, request: Request, about: Sequence[Row[Any]]) -> Outcome:
    if not about:  # so that the order, if it was overtaken on its way, is stale when it comes
        order = request.orders[0]
        _write(connection, sent, request.number, identifier_of(order) or "", order, None, "cancelled")
        return "unknown"
    _set_cancelled(connection, sent, [row for row in about if row.status == "waiting"])
    return "too-late" if any(row.status == "matched" for row in about) else "cancelled"


def _set_cancelled(connection: Connection, sent: Sent, rows: Sequence[Row[Any]]) -> None:
    ids = [row.id for row in rows]
    values = {"status": "cancelled", "message": sent.message, "sent_at": sent.at, "updated_at": time.time()}
    connection.execute(update(orders).where(orders.c.id.in_(ids)).values(**values))


def _put(
    connection: Connection, sent: Sent, number: str, identifier: str, order: Order, known: Row[Any] | None
) -> None:
    """Write an order down, and give it to the analyses of its slide."""
    which = and_(analyses.c.tenant == sent.tenant, analyses.c.slide_identifier == identifier)
    query = select(analyses.c.id, analyses.c.status, analyses.c.request).where(which, analyses.c.status.in_(FOUND))
    found = connection.execute(query.with_for_update()).all()
    _write(connection, sent, number, identifier, order, known, "matched" if found else "waiting")
    for analysis in found:
        carried = merged(analysis.request.get("order"), order)
        if carried == analysis.request.get("order"):
            continue
        values = {"request": analysis.request | {"order": carried}, "accession_number": carried["accession_number"]}
        connection.execute(update(analyses).where(analyses.c.id == analysis.id).values(**values))
        if analysis.status == "succeeded":
            outbox.announce_again(connection, analysis.id, sent.tenant)


def _write(
    connection: Connection,
    sent: Sent,
    number: str,
    identifier: str,
    order: Order,
    known: Row[Any] | None,
    status: str,
) -> None:
    now = time.time()
    values: dict[str, Any] = {
        "order": order.model_dump(mode="json", exclude_none=True),
        "source": sent.source,
        "status": status,
    }
    values |= {"message": sent.message[:1000], "sent_at": sent.at, "updated_at": now}
    if known is not None:
        connection.execute(update(orders).where(orders.c.id == known.id).values(**values))
        return
    key = {"id": str(uuid.uuid4()), "tenant": sent.tenant, "number": number, "identifier": identifier}
    connection.execute(insert(orders).values(**key, **values, created_at=now))
