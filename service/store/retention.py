"""What is deleted because it is old, and why nothing is where the clock cannot be believed.

A clock that is wrong once must not delete what people rely on. So a round of deleting is refused where

- the clock has moved otherwise than the time since this process' first round, by JUMP_S,
- it is before the last round, or at the first one of a process further after it (GAP_S) than a service is switched
  off for,
- more than SHARE of the results or slides would go at once,
- the database may not be the one of the data directory (`service.store.strays`).

A refused round deletes nothing. That stands in the database until a round is not refused: by itself, once the clock is
right again, or because a person says so (`allow`), which holds for one round within ALLOWED_S.

Results that a person signed stay for ever, unless the laboratory says for how long; what awaits a person's word on
whose it is, or is being reviewed, stays until that is done. Pages are small: others wait for
each transaction, and a statement takes only so many values.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import ColumnElement, Connection, Engine, Row, Table, and_, delete, insert, or_, select, tuple_, update

from service.errors import ParameterInvalid
from service.store import audit, orders, outbox
from service.store.clock import retention, steady, utc
from service.store.database import (
    analyses,
    callbacks,
    change,
    count,
    idempotency,
    messages,
    reading,
    review_entries,
    slides,
    writing,
)
from service.store.database import orders as orders_table
from service.store.database import outbox as outbox_table
from service.store.records import LIVE
from service.store.settings import Settings

DAY_S: Final = 86400.0
JUMP_S: Final = 3600.0  # what NTP corrects at a time, is seconds
GAP_S: Final = 7 * DAY_S
ALLOWED_S: Final = DAY_S
SHARE: Final = 0.25  # of the results, or of the slides
FEW: Final = 20  # never too many
PAGE: Final = 500  # rows of a transaction

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """The times (Unix seconds) before which things are old; `signed` None: what was signed never is."""

    results: float
    signed: float | None
    slides: float

    @classmethod
    def of(cls, settings: Settings, now: float) -> "Limits":
        """Compute them from the settings."""
        signed = settings.keep_signed_days
        return cls(
            results=now - settings.keep_results_days * DAY_S,
            signed=None if signed is None else now - signed * DAY_S,
            slides=now - settings.keep_slides_days * DAY_S,
        )


@dataclass(frozen=True, slots=True)
class Portion:
    """The numbers of some results and slides, which a round would delete, and of all that there are."""

    results: int
    all_results: int
    slides: int
    all_slides: int

    @property
    def too_many(self) -> bool:
        """Whether it is more than a round deletes without a person."""
        pairs = ((self.results, self.all_results), (self.slides, self.all_slides))
        return any(some > max(FEW, SHARE * every) for some, every in pairs)

    def __str__(self) -> str:
        """Say it in words."""
        return f"{self.results} of {self.all_results} results and {self.slides} of {self.all_slides} slides"


class Rounds:
    """The rounds of one process, by its clocks: the one that people set, and one that nobody does."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = steady,
    ) -> None:
        self._engine, self._settings, self._wall, self._steady = engine, settings, wall, steady
        self._first: tuple[float, float] | None = None  # both clocks at the first round, or at one that was allowed

    def begin(self, doubt: str | None = None) -> Limits | None:
        """Begin a round; gives what is old, or None where the round is refused, as for a `doubt` of the caller's."""
        now, since = self._wall(), self._steady()
        with reading(self._engine) as connection:
            row, limits = state(connection), Limits.of(self._settings, now)
            doubt = self._doubt(now, since, row.last_at if row else None) or doubt
            if doubt is None and (found := due(connection, limits)).too_many:
                doubt = f"{found} would be deleted at once"
        allowed = row is not None and row.allowed_at is not None and abs(now - row.allowed_at) <= ALLOWED_S
        if doubt is not None and not allowed:
            self._refuse(now, doubt)
            return None
        if self._first is None or allowed:
            self._first = (now, since)
        return limits

    def _doubt(self, now: float, since: float, last_at: float | None) -> str | None:
        """Say why the clock cannot be believed, if it cannot."""
        if self._first is not None and abs(ahead := (now - self._first[0]) - (since - self._first[1])) > JUMP_S:
            return f"the clock says {utc(now)}, and was moved by {ahead / 3600:+.1f} hours"
        if last_at is not None and now < last_at - JUMP_S:
            return f"the clock says {utc(now)}, but the last round was at {utc(last_at)}"
        if self._first is None and last_at is not None and now > last_at + GAP_S:
            return f"the clock says {utc(now)}, {(now - last_at) / DAY_S:.0f} days after the last round"
        return None

    def _refuse(self, now: float, reason: str) -> None:
        log.error("retention refused", reason=reason)
        with writing(self._engine) as connection:
            if (row := state(connection)) is None:
                connection.execute(insert(retention).values(id=1, last_at=now))
            connection.execute(update(retention).values(reason=reason))
            if row is None or row.refused_at is None:
                connection.execute(update(retention).values(refused_at=now))
                audit.record(connection, "", "maintenance", "refuse_retention", "", reason=reason)

    def end(self) -> None:
        """Note that a round is done."""
        values = {"last_at": self._wall(), "refused_at": None, "reason": None, "allowed_at": None}
        with writing(self._engine) as connection:
            if connection.execute(update(retention).values(values)).rowcount == 0:
                connection.execute(insert(retention).values(id=1, **values))


def state(connection: Connection) -> Row[tuple[int, float, float | None, str | None, float | None]] | None:
    """Read how far retention has come; None before the first round."""
    return connection.execute(select(retention)).one_or_none()


def allow(engine: Engine) -> str:
    """Let the next round be done though the last one was refused; gives why it was. Raises ParameterInvalid."""
    with writing(engine) as connection:
        row = state(connection)
        if row is None or row.reason is None:
            raise ParameterInvalid("there is nothing to allow: the last round of retention was not refused")
        connection.execute(update(retention).values(allowed_at=time.time()))
        return str(row.reason)


def due(connection: Connection, limits: Limits) -> Portion:
    """Count what is old, which a round would delete."""
    return Portion(
        results=count(connection, analyses, _old_results(limits)),
        all_results=count(connection, analyses, analyses.c.finished_at.is_not(None)),
        slides=count(connection, slides, old_slides(limits.slides)),
        all_slides=count(connection, slides),
    )


def _old_results(limits: Limits) -> ColumnElement[bool]:
    """Whether a result is old, and nobody is at it: it awaits no person's word, and no decision on it is new."""
    decisions = select(review_entries.c.revision).where(review_entries.c.analysis_id == analyses.c.id)
    signatures = decisions.where(review_entries.c.action == "sign")
    new_ones = signatures if limits.signed is None else signatures.where(review_entries.c.at >= limits.signed)
    being_reviewed = and_(decisions.where(review_entries.c.at >= limits.results).exists(), ~signatures.exists())
    awaited = or_(outbox.is_withdrawn(), analyses.c.held.is_not(None))
    old = and_(analyses.c.finished_at < limits.results, analyses.c.status.not_in(LIVE))
    return and_(old, ~awaited, ~being_reviewed, ~new_ones.exists())


def old_slides(before: float) -> ColumnElement[bool]:
    """Whether a slide was not used since a time (Unix seconds), and nothing that runs needs it."""
    in_use = select(analyses.c.slide_id).where(analyses.c.status.in_(LIVE))
    return and_(slides.c.used_at < before, slides.c.id.not_in(in_use))


def forget_results(engine: Engine, limits: Limits) -> Iterator[str]:
    """Delete the analyses whose results are old; yields their ids, so that their files can go."""
    old, page = _old_results(limits), [""]
    while page:
        with writing(engine) as connection:
            # locked first, then looked at again: somebody may sign one at this moment
            page = [*connection.scalars(select(analyses.c.id).where(old).limit(PAGE).with_for_update())]
            which = and_(analyses.c.id.in_(page), old)
            ids = connection.scalars(delete(analyses).where(which).returning(analyses.c.id)).all()
            now = time.time()
            audit.record_all(connection, [audit.Event(now, "", "maintenance", "delete", each, {}) for each in ids])
        yield from ids


def forget_rest(engine: Engine, before: float) -> None:
    """Delete what was written before a time (Unix seconds) about analyses that are gone, and what is settled."""
    for table, old in (
        (idempotency, idempotency.c.created_at < before),
        (callbacks, and_(callbacks.c.status != "waiting", callbacks.c.created_at < before)),
        (outbox_table, outbox.is_old(before)),
        (orders_table, orders.is_old(before)),
        (messages, messages.c.created_at < before),
    ):
        delete_all(engine, table, old)


def delete_all(engine: Engine, table: Table, old: ColumnElement[bool]) -> None:
    """Delete the rows that a condition holds for, a page at a time."""
    key = table.primary_key.columns
    page = select(*key).where(old).limit(PAGE)
    while change(engine, delete(table).where(tuple_(*key).in_(page), old)):
        pass
