"""Orders and slides find each other, whichever comes first, by what is written on the slide's label.

    placed --> waiting --> matched       (a slide with the identifier is analysed; more may follow)
     |  ^       |    '---> cancelled     (never once its slide has come: then a person must decide)
     v  |       v
    draft, on-hold                       (known, and matched to no slide before it is placed)

The identifier is the container's, else the accession number. A slide's comes with its upload's order, from its file
name by a pattern, or from its header. An order is known by its number, who assigned that, and its slide's identifier,
so that a message that says the same twice changes nothing; what was sent before the last thing that is known of an
order, by its sender's clock, is refused as stale. What an order means for results that are there already, is decided
in `service.store.matching`. Orders of training and debugging (MSH-11 T, D) are kept apart: they match no
slide, unless their sender's mapping says so; then they give way to those of production, and their results are marked.
"""

import math
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import structlog
from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, insert, or_, select, update

from service.order import Order, ReceivedOrder
from service.refusals import NotFound
from service.store import matching
from service.store.database import analyses, count, fetch, hold_lock, orders, reading

Control = Literal["place", "change", "cancel", "draft", "on-hold", "status"]
Outcome = Literal["placed", "changed", "cancelled", "inactive", "known", "stale", "too-late", "unknown"]
ProcessingId = Literal["P", "T", "D"]  # production, training, debugging
INACTIVE: Final = ("draft", "on-hold")  # nobody may act on these
OPEN: Final = ("waiting", *INACTIVE)  # their slide has not come
AHEAD_S: Final = 60.0  # that a sender's clock may be, and is believed
NAME_ALL: Final = ("change", *INACTIVE)  # requests after which an order has no other slides than they name

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """The part of a message about one order: its number, who assigned that, and what is asked for of each slide."""

    control: Control
    number: str
    orders: tuple[ReceivedOrder, ...]
    assigner: str = ""  # where the number names none, it is the sender's
    at: float = 0.0  # the sender's time of this order (Unix seconds; 0: that of the message)


@dataclass(frozen=True, slots=True)
class Sent:
    """The origin of a request: `at` is the sender's time (Unix seconds; 0: it did not say)."""

    tenant: str
    source: Literal["hl7", "fhir"]
    sender: str
    number: str = ""  # of the message
    at: float = 0.0
    processing_id: ProcessingId = "P"

    @property
    def message(self) -> str:
        """The message, for people."""
        return f"{self.sender} {self.number}".strip()[:1000]


def believed(at: float) -> float:
    """Give a sender's time; now where its clock is ahead, else all that is right would be stale until then."""
    if (ahead := at - time.time()) <= AHEAD_S:
        return at
    log.warning("the sender's clock is ahead", seconds=round(ahead))
    return math.floor(time.time())


def identifier_of(order: Order) -> str | None:
    """Return what is on the label of the slide that an order is for."""
    return order.container_id or order.accession_number


def slide_identifier(order: Order | None, name: str, pattern: str, container_id: str | None = None) -> str | None:
    """Find what is on a slide's label, by its upload, its name or the container in its header."""
    if order is not None and order.container_id:
        return order.container_id
    if pattern and (found := re.search(pattern, name)) and found["id"]:
        return str(found["id"])[:255]
    return container_id or (order.accession_number if order is not None else None)


def take_all(connection: Connection, sent: Sent, requests: Sequence[Request]) -> list[Outcome]:
    """Do all that a message asks, in its order; gives the outcome of each request.

    Of an order's slides that it names in several places, it names all: a later place takes none of them back.
    """
    named: dict[tuple[str, str], tuple[ReceivedOrder, ...]] = {}
    for each in requests:
        if each.control in NAME_ALL:
            named[each.number, each.assigner] = named.get((each.number, each.assigner), ()) + each.orders
    said = []
    for each in requests:
        all_of_it = named[each.number, each.assigner] if each.control in NAME_ALL else each.orders
        said.append(take(connection, sent, replace(each, orders=all_of_it)))
    return said


def take(connection: Connection, sent: Sent, request: Request) -> Outcome:
    """Do what a message asks, once; an order that is placed finds the analyses of its slide."""
    sent = replace(sent, at=request.at or sent.at)
    lock(connection, sent.tenant)
    known = rows_of(connection, sent, request)
    named = {identifier_of(order) or "": order for order in request.orders}
    about = [row for row in known if not row.identifier or not named.keys() - {""} or row.identifier in named]
    if request.control == "status":
        return "known" if known else "unknown"
    if sent.at and any(row.sent_at > sent.at for row in about):
        return "stale"
    if request.control == "cancel":
        return _cancel(connection, sent, request, about)
    rows = {row.identifier: row for row in known}
    others = [row for row in known if row.identifier not in named]
    replaced = others if request.control != "place" else [row for row in others if row.status in INACTIVE]
    inactive = request.control in INACTIVE
    if any(row.status == "matched" for row in (known if inactive else replaced)):  # both name all slides of an order
        return "too-late"
    for identifier, order in named.items():
        status = request.control if inactive else "waiting"
        order_id = _write(connection, sent, request, order, rows.get(identifier), status)
        if (sent.processing_id == "P" or order.processing_id) and not inactive:
            matching.offer(connection, order_id)
    _set_cancelled(connection, sent, [row for row in replaced if row.status in OPEN])
    return "inactive" if inactive else "changed" if request.control == "change" else "placed"


def find(engine: Engine, tenant: str, order_id: str) -> Sequence[Row[Any]]:
    """Find an order by the id of any of its rows. Raises NotFound."""
    with reading(engine) as connection:
        which = and_(orders.c.tenant == tenant, orders.c.id == order_id)
        row = connection.execute(select(orders).where(which)).one_or_none()
        if row is None:
            raise NotFound(f"there is no order {order_id[:64]}")
        same = and_(orders.c.assigner == row.assigner, orders.c.processing_id == row.processing_id)
        return _rows(connection, tenant, row.number, same)


def rows_of(connection: Connection, sent: Sent, request: Request) -> Sequence[Row[Any]]:
    """Find what is known of an order, a row for each slide; those that are cancelled come last.

    Of what was placed before assigners were kept, the sender's message says whose it is.
    """
    theirs = or_(orders.c.message == sent.sender, orders.c.message.startswith(f"{sent.sender} ", autoescape=True))
    older = and_(orders.c.assigner == "", theirs)
    same = or_(orders.c.assigner == assigner_of(sent, request), older)
    return _rows(connection, sent.tenant, request.number, and_(same, orders.c.processing_id == sent.processing_id))


def assigner_of(sent: Sent, request: Request) -> str:
    """Name who assigned an order's number."""
    return (request.assigner or f"sender {sent.sender}")[:255]


def _rows(connection: Connection, tenant: str, number: str, same: Any) -> Sequence[Row[Any]]:
    which = and_(orders.c.tenant == tenant, orders.c.number == number, same)
    cancelled = orders.c.status == "cancelled"
    return connection.execute(select(orders).where(which).order_by(cancelled, orders.c.created_at, orders.c.id)).all()


def waiting(engine: Engine) -> Sequence[Row[Any]]:
    """List orders of all tenants whose slide has not come, or that nobody may act on yet, oldest first."""
    return fetch(engine, select(orders).where(orders.c.status.in_(OPEN)).order_by(orders.c.created_at))


def count_waiting(engine: Engine) -> int:
    """Count the orders that wait for their slide."""
    with reading(engine) as connection:
        return count(connection, orders, orders.c.status == "waiting", orders.c.processing_id == "P")


def is_old(before: float) -> ColumnElement[bool]:
    """Whether nothing has happened to an order since a time (Unix seconds), and no result of it is kept."""
    over = or_(orders.c.status.not_in(OPEN), orders.c.processing_id != "P")
    kept = select(analyses.c.id).where(analyses.c.order_id == orders.c.id)
    return and_(over, orders.c.updated_at < before, ~kept.exists())


def lock(connection: Connection, tenant: str) -> None:
    """Let in one at a time of those who look for an order or for its slide, until the transaction ends."""
    hold_lock(connection, f"orders:{tenant}")


def _cancel(connection: Connection, sent: Sent, request: Request, about: Sequence[Row[Any]]) -> Outcome:
    if not about:  # so that the order, if it was overtaken on its way, is stale when it comes
        _write(connection, sent, request, request.orders[0], None, "cancelled")
        return "unknown"
    _set_cancelled(connection, sent, [row for row in about if row.status in OPEN])
    return "too-late" if any(row.status == "matched" for row in about) else "cancelled"


def _set_cancelled(connection: Connection, sent: Sent, rows: Sequence[Row[Any]]) -> None:
    ids = [row.id for row in rows]
    values = {"status": "cancelled", "message": sent.message, "updated_at": time.time()}
    values |= {"sent_at": sent.at} if sent.at else {}
    connection.execute(update(orders).where(orders.c.id.in_(ids)).values(**values))


def _write(
    connection: Connection, sent: Sent, request: Request, order: ReceivedOrder, known: Row[Any] | None, status: str
) -> str:
    """Write an order down and give its id; one that has its slide keeps it."""
    now = time.time()
    values: dict[str, Any] = {"order": order.model_dump(mode="json", exclude_none=True), "source": sent.source}
    values |= {"message": sent.message, "sent_at": sent.at, "updated_at": now}
    if known is not None:
        values["sent_at"] = max(sent.at, known.sent_at)  # what says no time takes none away
        values["status"] = known.status if known.status == "matched" else status
        values["assigner"] = known.assigner or assigner_of(sent, request)
        connection.execute(update(orders).where(orders.c.id == known.id).values(**values))
        return str(known.id)
    key = {"id": str(uuid.uuid4()), "tenant": sent.tenant, "number": request.number}
    key |= {"assigner": assigner_of(sent, request), "processing_id": sent.processing_id}
    key |= {"identifier": identifier_of(order) or "", "status": status}
    connection.execute(insert(orders).values(**key, **values, created_at=now))
    return key["id"]
