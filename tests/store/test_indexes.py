"""Questions that are asked often find their rows by an index: they cost the same with 200,000 analyses as with few.

`make bench-scale` measures it; this looks at SQLite's plans.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
from sqlalchemy import Engine, event

from service.store import outbox
from service.store.analyses import Analyses
from service.store.database import metadata
from service.store.holds import held_results
from service.store.slides import list_slides
from service.store.storage import Storage
from service.store.summaries import fill
from service.store.work_list import Sort, as_cursor, count_of_slides, find_page

CURSOR = as_cursor(1.7e9, "x")
SORTS: tuple[Sort, ...] = get_args(Sort)
ASKED: dict[str, Callable[[Analyses], object]] = {
    "list": lambda known: find_page(known.engine, "lab"),
    "list, going on": lambda known: find_page(known.engine, "lab", cursor=CURSOR),
    "list by status": lambda known: find_page(known.engine, "lab", status="failed", cursor=CURSOR),
    "list of held": lambda known: find_page(known.engine, "lab", held=True),
    "search": lambda known: find_page(known.engine, "lab", accession_number="A1", cursor=CURSOR),
    "search by patient": lambda known: find_page(known.engine, "lab", patient_id="P1", cursor=CURSOR),
    "list of signed": lambda known: find_page(known.engine, "lab", signed=False, cursor=CURSOR),
    "list by signed readings": lambda known: find_page(known.engine, "lab", signed_readings=1, cursor=CURSOR),
    "list of a slide": lambda known: find_page(known.engine, "lab", slide_id="s", cursor=CURSOR),
    "search by prefix": lambda known: find_page(known.engine, "lab", search="H26-1"),
    **{
        f"by {sort}": partial(lambda by, known: find_page(known.engine, "lab", sort=by), sort)
        for sort in get_args(Sort)
    },
    "counts of slides": lambda known: count_of_slides(known.engine, "lab", ["s", "t"]),
    "to be summarized": lambda known: fill(known.engine, Storage(Path(known.engine.url.database or "").parent)),
    "slides": lambda known: list_slides(known.engine, "lab", cursor=CURSOR),
    "slides without an analysis": lambda known: list_slides(known.engine, "lab", analysed=False, cursor=CURSOR),
    "all held": lambda known: held_results(known.engine),
    "statistics": lambda known: known.statistics(),
    "outbox": lambda known: outbox.statistics(known.engine, ["hl7"]),
    "next to be sent": lambda known: outbox.take(known.engine, "hl7", 1),
    "announcements": lambda known: outbox.share_out(known.engine, [], "lab"),
    "leases": lambda known: known.running(),
    "to be queued": lambda known: known.to_send(),
    "queued": lambda known: known.sent_and_queued(),
}


def plans(engine: Engine, question: Callable[[Analyses], object]) -> list[str]:
    """How SQLite finds what a question asks for."""
    asked: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    question(Analyses(engine))
    event.remove(engine, "before_cursor_execute", note)
    with engine.connect() as connection:
        return [
            row.detail
            for statement, parameters in asked
            if statement.startswith("SELECT")
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]


@pytest.mark.parametrize("what", ASKED)
def test_no_table_is_read_through(engine: Engine, what: str) -> None:
    found = plans(engine, ASKED[what])
    assert found
    assert [each for each in found if each.removeprefix("SCAN ") in metadata.tables] == []


def test_a_list_goes_on_where_it_ended(engine: Engine) -> None:
    for what in (
        "list, going on",
        "list by status",
        "search",
        "search by patient",
        "list of signed",
        "list of a slide",
    ):
        assert "(created_at,id)<(?,?)" in plans(engine, ASKED[what])[0], what
    assert "analyses_held" in plans(engine, ASKED["list of held"])[0]
    assert "accession_number=?" in plans(engine, ASKED["search"])[0]
    assert "patient_id=?" in plans(engine, ASKED["search by patient"])[0]
    assert "slides_not_analysed" in plans(engine, ASKED["slides without an analysis"])[0]
    searched = " ".join(plans(engine, ASKED["search by prefix"]))
    assert "analyses_by_name (tenant=? AND name_folded>? AND name_folded<?)" in searched
    assert "analyses_by_accession_folded (tenant=? AND accession_folded>? AND accession_folded<?)" in searched
