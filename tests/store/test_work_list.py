"""The work list: what a search finds, what a filter leaves, and that pages in any order hold each analysis once."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from sqlalchemy import Engine, update

from service.errors import RequestInvalid
from service.store import work_list
from service.store.analyses import Analyses
from service.store.database import analyses as table
from service.store.database import open_database, writing
from service.store.records import Submission, folded
from service.store.schema_version import downgrade
from service.store.work_list import Filters, Sort, as_cursor, count_of_slides, find_page
from tests.databases import job_store

SUBMISSION = Submission("lab", "slide-1", "slide.svs", {"parts": None}, "model", "0" * 64)
KNOWN: list[tuple[str, str | None, int | None, bool | None]] = [  # name, accession, MAI, signed
    ("Weiß, Käthe.svs", "H26-1", 12, True),
    ("weiss 2.svs", "H26-10", 3, False),
    ("B26-9.svs", None, 3, False),
    ("b26-10.svs", "h26-2", None, None),
    ("50%_off.svs", "X", 0, False),
]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = job_store(tmp_path)
    for name, accession, mai, signed in KNOWN:
        submit(engine, name, accession, mai=mai, signed=signed)
    yield engine
    engine.dispose()


def submit(engine: Engine, name: str, accession: str | None = None, **values: Any) -> str:
    asked = replace(SUBMISSION, slide_name=name, accession_number=accession)
    analysis, _ = Analyses(engine).submit(asked)
    mai, signed = values.get("mai"), values.get("signed")
    with writing(engine) as connection:
        found = {"signed": signed, "summary": values.get("summary") or (None if mai is None else {"mai": mai})}
        connection.execute(update(table).where(table.c.id == analysis.id).values(**found))
    return analysis.id


def names(engine: Engine, sort: Sort = "-created", **asked: Any) -> list[str]:
    filters: Filters = {**asked}  # type: ignore[typeddict-item]
    return [each.slide_name for each in find_page(engine, "lab", **filters, sort=sort).analyses]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("WEISS", {"Weiß, Käthe.svs", "weiss 2.svs"}),
        ("weiß, ka\u0308", {"Weiß, Käthe.svs"}),  # an accent in two characters, as one Mac writes it
        ("h26-1", {"Weiß, Käthe.svs", "weiss 2.svs"}),
        ("b26", {"B26-9.svs", "b26-10.svs"}),
        ("50%", {"50%_off.svs"}),
        ("%", set()),
        ("svs", set()),
        ("", {name for name, *_ in KNOWN}),
    ],
)
def test_a_search_is_by_the_beginning_in_any_case(engine: Engine, search: str, found: set[str]) -> None:
    assert set(names(engine, search=search)) == found


def test_filters_and_a_search_hold_at_once(engine: Engine) -> None:
    assert names(engine, signed=False) == ["50%_off.svs", "B26-9.svs", "weiss 2.svs"]
    assert names(engine, signed=True) == ["Weiß, Käthe.svs"]
    assert names(engine, signed=False, search="weis") == ["weiss 2.svs"]
    assert names(engine, slide_id="another") == []


def test_of_two_orders_one_is_the_other_one_reversed(engine: Engine) -> None:
    assert names(engine, "name") == sorted(names(engine), key=folded) == names(engine, "-name")[::-1]
    assert names(engine, "-mai")[0] == "Weiß, Käthe.svs"
    assert names(engine, "mai")[0] == "b26-10.svs"  # without a result
    assert names(engine, "accession")[:2] == ["B26-9.svs", "Weiß, Käthe.svs"]


@pytest.mark.parametrize("sort", get_args(Sort))
def test_pages_hold_each_once(engine: Engine, sort: Sort) -> None:
    seen, cursor = [], None
    for _ in range(4):
        page = find_page(engine, "lab", sort=sort, limit=2, cursor=cursor)
        seen += [each.slide_name for each in page.analyses]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == names(engine, sort)
    assert len(seen) == len(KNOWN)


def test_a_cursor_of_another_order_is_refused(engine: Engine) -> None:
    cursor = find_page(engine, "lab", sort="name", limit=1).cursor
    with pytest.raises(RequestInvalid):
        find_page(engine, "lab", sort="mai", cursor=cursor)


@pytest.mark.parametrize("value", [2**63, -(2**63), 10**400])
def test_a_cursor_that_no_database_compares_with_is_refused(engine: Engine, value: int) -> None:
    with pytest.raises(RequestInvalid):
        find_page(engine, "lab", sort="mai", cursor=as_cursor(value, "x"))
    with pytest.raises(RequestInvalid):
        find_page(engine, "lab", cursor=as_cursor(math.inf, "x"))


def test_it_says_where_more_fit_than_are_looked_at(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_list, "LOOKED_AT", 3)
    assert find_page(engine, "lab", sort="name").limited
    assert not find_page(engine, "lab").limited
    assert not find_page(engine, "lab", search="weis").limited
    assert not find_page(engine, "lab", signed=False, sort="name").limited


def test_it_counts_the_analyses_of_a_slide(engine: Engine) -> None:
    assert count_of_slides(engine, "lab", ["slide-1", "none"]) == {"slide-1": len(KNOWN)}
    assert count_of_slides(engine, "another", ["slide-1"]) == {}


def test_blinded_readers_see_no_order_by_what_another_has_counted(engine: Engine) -> None:
    kept = {"mai": 1, "blinded": {"mai": 20}}, {"mai": 2, "blinded": None}
    for summary in kept:
        submit(engine, f"by {summary['mai']}", summary=summary)
    for blinded, expected in (
        (False, ["Weiß, Käthe.svs", "by 2", "by 1"]),
        (True, ["by 1", "Weiß, Käthe.svs", "by 2"]),
    ):
        page = find_page(engine, "lab", sort="-mai", limit=7, blinded=blinded)
        assert [each.slide_name for each in page.analyses if each.slide_name in expected] == expected
    first = find_page(engine, "lab", sort="-mai", limit=1, blinded=True)
    after = find_page(engine, "lab", sort="-mai", limit=1, blinded=True, cursor=first.cursor)
    assert after.analyses[0].slide_name == "Weiß, Käthe.svs"


def test_what_was_there_before_the_work_list_is_found_too(engine: Engine) -> None:
    downgrade(engine, "0005")
    row = {"id": "signed", "tenant": "lab", "slide_id": "s", "slide_name": "ÄRGER", "status": "succeeded"}
    row |= {"request": "{}", "model": "m", "model_sha256": "", "priority": "stat", "moves": 0, "created_at": 1}
    entry = {"analysis_id": "signed", "revision": 1, "action": "sign", "reviewer": "R", "at": 1}
    with writing(engine) as connection:
        for name, values in (("analyses", row), ("review_entries", entry)):
            connection.exec_driver_sql(_insert(name, values), tuple(values.values()))
    open_database(engine.url).dispose()
    assert names(engine, search="ärg") == names(engine, signed=True) == ["ÄRGER"]
    assert set(names(engine, search="weiss")) == {"Weiß, Käthe.svs", "weiss 2.svs"}


def _insert(name: str, row: dict[str, Any]) -> str:
    return f"INSERT INTO {name} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
