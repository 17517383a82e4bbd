"""The list of analyses: filtered, searched, sorted, a page at a time.

Every page costs the same, however many analyses there are. Newest first, and for each filter, an index gives the order.
In any other order, and in a search, at most LOOKED_AT analyses are looked at: the newest that fit, or the first by the
alphabet of those that a search finds. A page says so where there were more.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict, Unpack

from sqlalchemy import ColumnElement, Engine, Select, func, select, true, tuple_

from service.errors import RequestInvalid
from service.store.database import analyses, fetch, reading
from service.store.records import NEWEST, Analysis, Status, find_analyses, folded

LOOKED_AT: Final = 1000
LARGEST: Final = 2**63  # no database compares with more, nor with what is no number
LAST: Final = "\U0010ffff"  # no text that begins alike sorts after this

Sort = Literal["-created", "created", "name", "-name", "accession", "-accession", "mai", "-mai"]
_BY: Final[dict[str, tuple[ColumnElement[Any], type]]] = {
    "created": (analyses.c.created_at, float),
    "name": (analyses.c.name_folded, str),
    "accession": (analyses.c.accession_folded, str),
    "mai": (func.coalesce(analyses.c.summary["mai"].as_integer(), -1), int),
}
_TO_BLINDED: Final = analyses.c.summary[("blinded", "mai")].as_integer()  # where it is another (`KeptSummary`)


class Filters(TypedDict, total=False):
    """The analyses that are asked for; None asks for all."""

    status: Status | None
    accession_number: str | None
    patient_id: str | None
    held: bool | None
    signed: bool | None  # of those that succeeded
    signed_readings: int | None
    slide_id: str | None
    search: str | None  # how a name or an accession number begins, in any case


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the list; `cursor` leads to the next one, `limited` tells that more than LOOKED_AT fit."""

    analyses: Sequence[Analysis]
    cursor: str | None
    limited: bool = False


def find_page(
    engine: Engine,
    tenant: str,
    *,
    sort: Sort = "-created",
    limit: int = 50,
    cursor: str | None = None,
    blinded: bool = False,
    **asked: Unpack[Filters],
) -> Page:
    """Find a page of a tenant's analyses, sorted by what blinded readers may see if they are.

    Raises RequestInvalid for a cursor that is none of this order.
    """
    column, kind = _BY[sort.lstrip("-")]
    if blinded and kind is int:
        column = func.coalesce(_TO_BLINDED, column)
    descends, limited = sort.startswith("-"), False
    after = None if cursor is None else from_cursor(cursor, kind)
    where = (analyses.c.tenant == tenant) & _fitting(asked)
    with reading(engine) as connection:
        search = folded(asked.get("search"))
        if search or column is not analyses.c.created_at:
            newest = select(analyses.c.id).where(where).order_by(*NEWEST)
            queries = _begins(tenant, search) if search else [newest]
            found_ids = [connection.scalars(each.limit(LOOKED_AT + 1)).all() for each in queries]
            limited = any(len(ids) > LOOKED_AT for ids in found_ids)
            # by their ids, and by no index of a filter, which would have more to look through
            where = analyses.c.id.in_(set().union(*found_ids)) & _fitting(asked, lambda each: func.coalesce(each, each))
        if after is not None:
            key = tuple_(column, analyses.c.id)
            where &= key < tuple_(*after) if descends else key > tuple_(*after)
        order = [each.desc() if descends else each.asc() for each in (column, analyses.c.id)]
        found = find_analyses(connection, where, limit + 1, order)
        if len(found) <= limit:
            return Page(found, None, limited)
        last = found[limit - 1].id
        value = connection.execute(select(column).where(analyses.c.id == last)).scalar_one()
    return Page(found[:limit], as_cursor(value, last), limited)


def _fitting(asked: Filters, compared: Callable[[Any], Any] = lambda column: column) -> ColumnElement[bool]:
    """Write the filters as a condition; `compared` is what is compared of a column."""
    where: ColumnElement[bool] = true()
    for name in ("status", "accession_number", "patient_id", "signed", "signed_readings", "slide_id"):
        if (value := asked.get(name)) is not None:
            where &= compared(analyses.c[name]) == value
    if (held := asked.get("held")) is not None:
        where &= analyses.c.held.is_not(None) if held else analyses.c.held.is_(None)
    return where


def _begins(tenant: str, search: str) -> list[Select[Any]]:
    """Choose those whose name, and those whose accession number begins so."""
    found = []
    for column in (analyses.c.name_folded, analyses.c.accession_folded):
        begins = (analyses.c.tenant == tenant) & (column >= search) & (column < search + LAST)
        found.append(select(analyses.c.id).where(begins).order_by(column))
    return found


def count_of_slides(engine: Engine, tenant: str, slide_ids: Sequence[str]) -> dict[str, int]:
    """Count the analyses of each of a page's slides."""
    mine = (analyses.c.tenant == tenant) & analyses.c.slide_id.in_(set(slide_ids))
    counts = select(analyses.c.slide_id, func.count()).where(mine).group_by(analyses.c.slide_id)
    return {row[0]: row[1] for row in fetch(engine, counts)}


def as_cursor(value: float | str, analysis_id: str) -> str:
    """Write down where a list goes on: after an analysis, by what the list is sorted by."""
    return base64.urlsafe_b64encode(json.dumps([value, analysis_id]).encode()).decode()


def from_cursor(text: str, kind: type) -> tuple[Any, str]:
    """Read what `as_cursor` wrote. Raises RequestInvalid."""
    try:
        value, analysis_id = json.loads(base64.urlsafe_b64decode(text.encode()))
        comparable = kind is str or abs(value) < LARGEST
        if not comparable or type(value) is not kind or not isinstance(analysis_id, str):
            raise ValueError(text)
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise RequestInvalid("the cursor is not one that a list in this order gave") from error
    return value, analysis_id
