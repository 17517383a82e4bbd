"""Readings: what two people said of each figure put together, who may read, and both at once in the store."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, insert

from service.errors import ParameterInvalid
from service.readings import merge, reading_to_change, reading_to_show, second_reading, signed_report, signed_review
from service.refusals import ReadingTaken, RevisionConflict
from service.report import Report
from service.review import Change, Entry, Reviewer, decided, replay
from service.store.analyses import Analyses
from service.store.database import open_database, review_entries, writing
from service.store.records import Analysis, Submission
from service.store.reviews import Reviews
from tests.export.hospital import MPP, report_of
from tests.test_review import REPORT, TISSUE

ANNA, BORIS, CLARA = (Reviewer(name, None, None) for name in ("Meyer, Anna", "Ivanov, Boris", "Weiß, Käthe"))


def submitted(engine: Engine) -> Analysis:
    return Analyses(engine).submit(Submission("lab", "slide", "slide.svs", {}, "model", "0" * 64))[0]


class Case:
    """One analysis that two people read, blinded."""

    def __init__(self, engine: Engine) -> None:
        self.reviews, self.analysis = Reviews(engine, "blinded"), submitted(engine)

    @property
    def entries(self) -> list[Entry]:
        return self.reviews.entries(self.analysis.id)

    def revision(self, by: Reviewer) -> int:
        mine = reading_to_change(REPORT, self.entries, "blinded", by).entries
        return mine[-1].revision if mine else 0

    def change(self, by: Reviewer, *changes: Change) -> None:
        self.reviews.change(self.analysis, REPORT, self.revision(by), changes, by)

    def sign(self, by: Reviewer) -> None:
        self.reviews.sign(self.analysis, REPORT, TISSUE, self.revision(by), by)

    def shown(self, by: Reviewer) -> dict[int, Any]:
        return dict(replay(REPORT, reading_to_show(REPORT, self.entries, "blinded", by).entries))


@pytest.fixture
def case(engine: Engine) -> Case:
    return Case(engine)


def near(number: int, apart_um: float) -> Change:
    figure = REPORT.detections[number - 1]
    return Change("add", x=figure.x + apart_um / MPP[0], y=figure.y)


def counted_by(case: Case) -> dict[int, tuple[bool, bool]]:
    return {each.id: (each.first.counted, each.second.counted) for each in merge(REPORT, case.entries)}


def test_figures_that_both_added_at_one_place_are_one(case: Case) -> None:
    case.change(ANNA, Change("add", x=10.0, y=10.0), Change("add", x=500.0, y=10.0))
    case.change(BORIS, Change("add", x=22.0, y=10.0), Change("add", x=540.0, y=10.0))  # 3 and 10 um away
    for by in (ANNA, BORIS):
        case.sign(by)
    assert counted_by(case) == dict.fromkeys(range(1, 8), (True, True)) | {8: (True, False), 9: (False, True)}
    opened = case.shown(CLARA)
    assert [(opened[each].decision, opened[each].origin, opened[each].x) for each in (7, 8, 9)] == [
        ("accepted", "person", 10.0),
        (None, "person", 500.0),
        (None, "person", 540.0),
    ]
    assert opened[7].reviewer == "Meyer, Anna; Ivanov, Boris"
    case.change(CLARA, Change("reject", 8), Change("accept", 9), Change("add", x=900.0, y=10.0))
    case.sign(CLARA)
    report, status, confirmed, _ = signed_report(REPORT, case.entries)
    assert [each.id for each in report.detections] == [1, 2, 3, 4, 5, 6, 7, 9, 10]
    assert (status, confirmed and confirmed.name, report.counts.total) == ("final", CLARA.name, 9)


def test_a_figure_that_one_moved_is_the_one_that_the_other_kept(case: Case) -> None:
    case.change(ANNA, Change("reject", 1), near(1, 2.0))
    case.change(BORIS, Change("accept", 1), Change("reject", 2))
    assert counted_by(case)[1] == (True, True)
    assert len(counted_by(case)) == 6
    case.change(BORIS, Change("reject", 1), Change("add", x=10.0, y=10.0), Change("reject", 7))
    assert counted_by(case)[1] == (True, False)
    assert 7 not in counted_by(case)  # what its own reader rejected again


def test_what_both_say_begins_the_consensus_with_their_reasons(case: Case) -> None:
    case.change(ANNA, Change("reject", 1, reason="Apoptose"), Change("reject", 2, reason="Pyknose"))
    case.change(BORIS, Change("reject", 1, reason="Artefakt"), Change("reject", 2, reason="Pyknose"))
    case.sign(BORIS)
    case.change(ANNA, Change("accept", 3))
    assert case.shown(CLARA)[1].decision is None  # nobody has both signatures yet
    case.sign(ANNA)
    opened = case.shown(CLARA)
    assert (opened[1].reason, opened[2].reason) == ("Apoptose; Artefakt", "Pyknose")
    assert [opened[each].decision for each in (1, 2, 3, 4)] == ["rejected", "rejected", "accepted", None]


def test_a_consensus_whose_signature_is_void_is_signed_again_and_nobody_reads_again(engine: Engine, case: Case) -> None:
    case.change(ANNA, Change("reject", 1))
    case.change(BORIS, Change("reject", 1))
    for by in (ANNA, BORIS, CLARA):
        case.sign(by)
    assert signed_report(REPORT, case.entries)[1:4:2] == ("final", 5)
    void = {"analysis_id": case.analysis.id, "revision": 6, "action": "void", "reviewer": "Clerk", "at": 1.0}
    with writing(engine) as connection:  # as where a person gives the result to another order
        connection.execute(insert(review_entries).values(**void))
    assert signed_report(REPORT, case.entries)[1] == "preliminary"
    with pytest.raises(RevisionConflict):
        case.reviews.sign(case.analysis, REPORT, TISSUE, 5, CLARA)
    told = second_reading(REPORT, case.entries, "blinded", reading_to_change(REPORT, case.entries, "blinded", ANNA))
    assert told
    assert (told.reading, told.signed[:2], told.disagreements) == ("consensus", ["first", "second"], [])
    case.change(ANNA, Change("reject", 2))
    case.sign(ANNA)
    report, status, _, revision = signed_report(REPORT, case.entries)
    assert ([each.id for each in report.detections], status, revision) == ([3, 4, 5, 6], "final", 8)
    review = signed_review(REPORT, case.entries)
    assert review
    assert (review.revision, review.counts.total) == (8, 4)


def test_a_name_is_one_person_however_it_is_written(case: Case) -> None:
    case.change(ANNA, Change("reject", 1))
    case.change(Reviewer(" MEYER,  anna"), Change("reject", 2))
    case.change(Reviewer("Meyer, Anna\u200b"), Change("reject", 3))
    assert {each.reading for each in case.entries} == {"first"}
    case.change(Reviewer("Müller, J."), Change("reject", 1))
    case.change(Reviewer("Mu\u0308ller, J."), Change("reject", 2))
    case.change(Reviewer("Müller, J."), Change("clear", 2))
    with pytest.raises(ReadingTaken):
        case.change(CLARA, Change("reject", 1))
    with pytest.raises(RevisionConflict):
        case.reviews.change(case.analysis, REPORT, 99, [Change("reject", 1)], Reviewer("Müller, J."))


PLACES = st.tuples(st.integers(0, 900), st.integers(0, 900))


@given(*(st.lists(st.one_of(st.integers(1, 6), PLACES), max_size=8) for _ in range(2)))
@settings(max_examples=40, deadline=None)
def test_every_kept_figure_is_in_the_merge_once(first: list[Any], second: list[Any]) -> None:
    entries: list[Entry] = []
    totals = []
    for name, by, asked in (("first", ANNA, first), ("second", BORIS, second)):
        mine: list[Entry] = []
        for each in asked:
            x, y = each if isinstance(each, tuple) else (0, 0)
            change = Change("add", x=float(x), y=float(y)) if isinstance(each, tuple) else Change("reject", each)
            mine += made(REPORT, mine, change, by, name)
        entries += mine
        totals.append(sum(each.decision != "rejected" for each in replay(REPORT, mine).values()))
    figures = merge(REPORT, entries)
    assert [sum(each.first.counted for each in figures), sum(each.second.counted for each in figures)] == totals
    assert [each.id for each in figures] == list(range(1, len(figures) + 1))


def made(report: Report, before: list[Entry], change: Change, by: Reviewer, name: Any) -> list[Entry]:
    try:
        return [replace(each, reading=name) for each in decided(report, before, [change], by)]
    except ParameterInvalid:  # too near to another
        return []


def both_at_once(engine: Engine) -> None:
    """Two people decide at the same time, eight times each, and neither is ever refused."""
    case = Case(engine)

    def decide(by: Reviewer) -> None:
        for turn in range(8):
            case.change(by, Change("reject" if turn % 2 else "accept", 1 + turn % 6))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(decide, [ANNA, BORIS]))
    assert [each.revision for each in case.entries] == list(range(1, 17))
    of = {each.reading: {one.reviewer for one in case.entries if one.reading == each.reading} for each in case.entries}
    assert sorted(map(sorted, of.values())) == [[BORIS.name], [ANNA.name]]


def test_two_at_once_are_never_refused(engine: Engine) -> None:
    both_at_once(engine)


def test_two_at_once_are_never_refused_on_postgresql(postgresql: str) -> None:
    engine = open_database(postgresql)
    both_at_once(engine)
    engine.dispose()


def test_a_report_without_figures_can_be_read_by_two(engine: Engine) -> None:
    report, reviews, analysis = report_of(0), Reviews(engine, "blinded"), submitted(engine)
    for by in (ANNA, BORIS):
        reviews.sign(analysis, report, TISSUE, 0, by)
    entries = reviews.sign(analysis, report, TISSUE, 2, CLARA)
    assert signed_report(report, entries)[1:2] == ("final",)
