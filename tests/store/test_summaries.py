"""What the list says of a result is what its review says, before and after each change, whoever is interrupted."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from service.review import Change, Entry, Reviewer
from service.store.database import analyses, writing
from service.store.reviews import Reviews
from service.store.summaries import fill, keep, shown, summarize, summary_of
from service.store.work_list import find_page
from tests.store.test_results import Stored

ANNA = Reviewer("Meyer, Anna")


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    made = Stored(tmp_path)
    yield made
    made.engine.dispose()


def said(stored: Stored, analysis_id: str) -> dict[str, Any] | None:
    found = stored.analyses.get(analysis_id, "lab").summary
    told = shown(found, "off")
    return told and told.model_dump()


def change(stored: Stored, analysis_id: str, revision: int) -> None:
    analysis, result = stored.analyses.get(analysis_id, "lab"), stored.result(analysis_id)
    Reviews(stored.engine).change(analysis, result.report(), revision, [Change("reject", 1)], ANNA)


def test_it_follows_the_review(stored: Stored) -> None:
    result = stored.succeeded()
    report, analysis_id = result.report(), result.analysis_id
    assert said(stored, analysis_id) is None
    assert fill(stored.engine, stored.storage) == 1
    first = said(stored, analysis_id)
    assert first == summary_of(report, [], report).model_dump()
    assert (first["figures"], first["undecided"], first["reviewer"], first["status"]) == (3, 3, None, "preliminary")
    change(stored, analysis_id, 0)
    assert said(stored, analysis_id) is None
    assert fill(stored.engine, stored.storage) == 1
    second = said(stored, analysis_id)
    assert second
    assert (second["total"], second["undecided"], second["reviewer"]) == (2, 2, "Meyer, Anna")
    analysis = stored.analyses.get(analysis_id, "lab")
    Reviews(stored.engine).sign(analysis, report, result.glass(), 1, Reviewer("Weiß, Käthe"))
    assert find_page(stored.analyses.engine, "lab", signed=True).analyses[0].id == analysis_id
    fill(stored.engine, stored.storage)
    signed = said(stored, analysis_id)
    assert signed
    assert (signed["status"], signed["reviewer"], signed["changed"]) == ("final", "Weiß, Käthe", False)
    change(stored, analysis_id, 2)
    fill(stored.engine, stored.storage)
    assert (said(stored, analysis_id) or {})["changed"] is True
    assert fill(stored.engine, stored.storage) == 0


def test_a_result_of_an_earlier_releases_worker_is_one_that_nobody_signed(stored: Stored) -> None:
    result = stored.succeeded()
    with writing(stored.engine) as connection:
        connection.execute(update(analyses).values(signed=None))  # which it does not say
    assert find_page(stored.analyses.engine, "lab", signed=False).analyses == []
    fill(stored.engine, stored.storage)
    assert [each.id for each in find_page(stored.analyses.engine, "lab", signed=False).analyses] == [result.analysis_id]


def test_a_void_signature_is_none(stored: Stored) -> None:
    report = stored.succeeded().report()
    signed = Entry(1, "sign", None, None, None, None, "Weiß, Käthe", None, datetime.now(UTC), {})
    found = summary_of(report, [signed, replace(signed, revision=2, action="void")], report)
    assert (found.status, found.changed, found.reviewer) == ("preliminary", False, "Weiß, Käthe")


def test_one_of_an_earlier_revision_is_not_kept(stored: Stored) -> None:
    result = stored.succeeded()
    change(stored, result.analysis_id, 0)
    keep(stored.engine, result.analysis_id, 0, summarize(result.report(), [], lambda _: result.report()))
    assert said(stored, result.analysis_id) is None


def test_a_result_that_cannot_be_read_is_left_out_once(stored: Stored) -> None:
    result = stored.succeeded()
    result.path("report").unlink()
    assert fill(stored.engine, stored.storage) == 1
    assert fill(stored.engine, stored.storage) == 0
    assert stored.analyses.get(result.analysis_id, "lab").summary == {}
