"""Reviews: replaying against a model of its own, counts against brute force, and the store under races."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import hypot, pi, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import DBAPIError

from service.errors import ParameterInvalid
from service.mitotic_figures import MERGE_UM
from service.quality import QualityMap
from service.readings import signed_report
from service.refusals import NotFound, RevisionConflict
from service.report import Rectangle, Report
from service.review import Change, Entry, Reviewer, decided, replay, reviewed, revision_of, undecided
from service.store import audit
from service.store.analyses import Analyses
from service.store.database import open_database, outbox, reading, writing
from service.store.records import Analysis, Submission
from service.store.reviews import Reviews
from service.tissue import WHOLE, TissueMask
from tests.export.hospital import MPP, SIZE, report_of
from tests.test_hot_spots import brute_force_discs

BY = Reviewer("Müßig, Käthe", "Institut für Pathologie", "0123456789abcdef")
REPORT = report_of(6)
MAI_RADIUS_UM = sqrt(1e6 * 10 * 0.45**2 * pi / 4 / pi)


def tissue_of(report: Report, columns: int | None = None) -> QualityMap:
    """Tissue everywhere on the left half of the slide, or on so many columns of 8 um."""
    mask = np.zeros((report.slide.height // 16, report.slide.width // 32), bool)
    mask[:, : mask.shape[1] // 2 if columns is None else columns] = True
    return QualityMap(TissueMask(mask * np.uint8(WHOLE), (32.0, 16.0), report.slide.mpp), mask * np.uint8(0))


TISSUE = tissue_of(REPORT)


def made(report: Report, *changes: Change, after: list[Entry] | None = None) -> list[Entry]:
    return [*(after or []), *decided(report, after or [], list(changes), BY)]


def signature(entries: list[Entry], report: Report = REPORT) -> Entry:
    counted = reviewed(report, tissue_of(report), entries).model_dump(mode="json", include={"counts", "mai", "scores"})
    at = REPORT.analysis.created_at
    return Entry(revision_of(entries) + 1, "sign", None, None, None, None, BY.name, BY.organization, at, counted)


# Replaying

PLACES = st.tuples(st.integers(0, SIZE[0] - 1), st.integers(0, SIZE[1] - 1))
ASKED = st.lists(
    st.tuples(st.sampled_from(["accept", "reject", "clear", "add"]), st.integers(1, 10), PLACES), max_size=25
)


def as_change(action: Any, number: int, place: tuple[int, int]) -> Change:
    if action == "add":
        return Change("add", x=float(place[0]), y=float(place[1]))
    return Change(action, id=number, reason=f"because {number}")


class Model:
    """What a review is, told in another way: two dictionaries."""

    def __init__(self) -> None:
        self.decisions: dict[int, str | None] = dict.fromkeys(range(1, len(REPORT.detections) + 1))
        self.added: dict[int, tuple[float, float]] = {}
        self.next = len(REPORT.detections) + 1

    def counted_near(self, x: float, y: float) -> bool:
        places = {each.id: (each.x, each.y) for each in REPORT.detections} | self.added
        counted = [places[number] for number, decision in self.decisions.items() if decision != "reject"]
        return any(hypot((x - a) * MPP[0], (y - b) * MPP[1]) < MERGE_UM - 0.01 for a, b in counted)

    def apply(self, change: Change) -> None:
        if change.action == "add":
            self.added[self.next] = (change.x or 0.0, change.y or 0.0)
            self.decisions[self.next] = "accept"
            self.next += 1
        elif change.action == "clear" and change.id in self.added:
            del self.added[change.id], self.decisions[change.id]
        else:
            assert change.id is not None
            self.decisions[change.id] = None if change.action == "clear" else change.action


@given(ASKED, st.integers(1, 5))
def test_replaying_is_applying_one_after_another(asked: list[Any], batch: int) -> None:
    model, entries, batched, waiting = Model(), list[Entry](), list[Entry](), list[Change]()
    for change in (as_change(*each) for each in asked):
        try:
            entries = made(REPORT, change, after=entries)
        except ParameterInvalid:
            known = change.id in model.decisions
            assert model.counted_near(change.x or 0, change.y or 0) if change.action == "add" else not known
            continue
        model.apply(change)
        waiting.append(change)
        found = replay(REPORT, entries)
        verbs = {"accept": "accepted", "reject": "rejected", None: None}
        assert {number: each.decision for number, each in found.items()} == {
            number: verbs[decision] for number, decision in model.decisions.items()
        }
        assert {number: (each.x, each.y) for number, each in found.items() if each.origin == "person"} == model.added
    for start in range(0, len(waiting), batch):  # several at a time come to the same
        batched = made(REPORT, *waiting[start : start + batch], after=batched)
    assert [replace(each, at=REPORT.analysis.created_at) for each in batched] == [
        replace(each, at=REPORT.analysis.created_at) for each in entries
    ]
    assert [entry.revision for entry in entries] == list(range(1, len(entries) + 1))


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=30), st.lists(PLACES, max_size=6))
@settings(max_examples=40, deadline=None)
def test_counts_are_those_of_brute_force(decisions: list[tuple[int, bool]], places: list[tuple[int, int]]) -> None:
    report = report_of(12)
    changes = [Change("reject" if out else "accept", id=number) for number, out in decisions]
    entries = made(report, *changes)
    for x, y in places:
        try:
            entries = made(report, Change("add", x=float(x), y=float(y)), after=entries)
        except ParameterInvalid:  # too near to another
            continue
    found = reviewed(report, tissue_of(report), entries)
    kept = [(each.x_um, each.y_um) for each in found.detections if each.decision != "rejected"]
    assert found.counts.total == len(kept)
    most = max((len(members) for members in brute_force_discs(kept, MAI_RADIUS_UM)), default=0)
    assert found.mai.count == most
    assert [score.count for score in found.scores if score.definition == "mai_who2003"] == [most]


def test_what_nobody_has_changed_is_counted_as_the_report_says() -> None:
    entries = made(REPORT, Change("accept", id=2), Change("reject", id=3), Change("clear", id=3))
    found = reviewed(REPORT, TISSUE, entries)
    assert (found.counts, found.mai, found.scores) == (REPORT.counts, REPORT.mai, REPORT.scores)
    assert [each.decision for each in found.detections] == [None, "accepted", None, None, None, None]


def test_the_area_and_the_tissue_of_hot_spots_are_counted_again() -> None:
    x, y = SIZE[0] / 4, SIZE[1] / 2  # in the tissue; its right edge is 2500 um away, the slide's left one 1250 um
    changes = [Change("reject", id=each.id) for each in REPORT.detections]
    found = reviewed(REPORT, TISSUE, made(REPORT, *changes, Change("add", x=x, y=y)))
    assert found.mai.hotspot is not None
    assert (found.mai.count, found.mai.hotspot.x, found.mai.hotspot.y) == (1, x, y)
    assert (found.mai.hotspot.tissue_fraction, found.mai.area_sufficient) == (1.0, True)
    assert found.counts.per_mm2 == round(1 / TISSUE.tissue.area_mm2(), 4)
    found = reviewed(REPORT, tissue_of(REPORT, 20), made(REPORT, *changes, Change("add", x=x, y=y)))
    assert (found.mai.area_sufficient, found.mai.high_risk, found.mai.tissue_mm2) == (False, None, 0)
    assert found.mai.hotspot is not None
    assert (found.mai.hotspot.tissue_fraction, found.mai.hotspot.sections, found.mai.grown) == (0.0, 0, None)
    half = reviewed(REPORT, TISSUE, made(REPORT, *changes, Change("add", x=SIZE[0] / 2, y=y)))
    assert (half.mai.tissue_mm2, half.mai.area_sufficient) == (pytest.approx(0.795, abs=0.006), False)
    assert half.mai.grown is not None
    assert (half.mai.grown.count, half.mai.grown.high_risk) == (1, False)
    assert half.mai.grown.area_mm2 == pytest.approx(2 * half.mai.area_mm2, rel=0.01)


def test_what_nobody_has_decided_on_is_counted_with_what_people_added_and_took_back() -> None:
    assert undecided(REPORT, []) == (6, 6)
    entries = made(REPORT, Change("accept", id=2), Change("reject", id=3), Change("add", x=10.0, y=10.0))
    assert undecided(REPORT, entries) == (4, 7)
    assert undecided(REPORT, made(REPORT, Change("clear", id=3), after=entries)) == (5, 7)


def test_everything_can_be_rejected() -> None:
    entries = made(REPORT, *(Change("reject", id=each.id, reason="pyknosis") for each in REPORT.detections))
    found = reviewed(REPORT, TISSUE, entries)
    assert (found.counts.total, found.counts.per_mm2, found.mai.count, found.mai.hotspot) == (0, 0.0, 0, None)
    assert {each.reason for each in found.detections} == {"pyknosis"}
    version, status, confirmed, revision = signed_report(REPORT, [*entries, signature(entries)])
    assert (version.detections, version.mai.count, status, revision) == ([], 0, "final", 7)
    assert confirmed
    assert (confirmed.name, confirmed.organization) == (BY.name, BY.organization)


# Deciding


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (Change("reject", id=7), "there is no detection 7"),
        (Change("clear", id=0), "there is no detection 0"),
        (Change("add", x=float(SIZE[0]), y=0.0), "outside"),
        (Change("add", x=0.0, y=SIZE[1] + 0.5), "outside"),
        (Change("add", x=-0.01, y=5.0), "outside"),
        (Change("add", x=REPORT.detections[0].x + 8, y=REPORT.detections[0].y), "detection 1 is within 7.5 um"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.action,
)
def test_a_change_that_cannot_be_made_is_named(change: Change, reason: str) -> None:
    with pytest.raises(ParameterInvalid, match=rf"changes\.1: .*{reason}"):
        decided(REPORT, [], [Change("accept", id=1), change], BY)


@pytest.mark.parametrize(("merge_um", "apart_um", "refused"), [(3.0, 2.9, True), (3.0, 3.1, False), (9.0, 8.9, True)])
def test_what_is_one_mitosis_is_as_the_report_was_made(merge_um: float, apart_um: float, refused: bool) -> None:
    report = REPORT.model_copy(update={"parameters": {"merge_um": merge_um}})
    first = report.detections[0]
    change = Change("add", x=first.x + apart_um / MPP[0], y=first.y)
    if refused:
        with pytest.raises(ParameterInvalid, match=f"within {merge_um:g} um"):
            decided(report, [], [change], BY)
    else:
        assert len(decided(report, [], [change], BY)) == 1


def test_what_is_rejected_may_be_added_at_a_better_place() -> None:
    first = REPORT.detections[0]
    entries = made(REPORT, Change("reject", id=1), Change("add", x=first.x + 2, y=first.y))
    assert [each.id for each in reviewed(REPORT, TISSUE, entries).detections] == [1, 2, 3, 4, 5, 6, 7]


def test_numbers_are_never_given_twice() -> None:
    entries = made(REPORT, Change("add", x=10.0, y=10.0), Change("clear", id=7), Change("add", x=10.0, y=10.0))
    assert set(replay(REPORT, entries)) == {1, 2, 3, 4, 5, 6, 8}
    with pytest.raises(ParameterInvalid, match="there is no detection 7"):
        made(REPORT, Change("reject", id=7), after=entries)


def test_a_region_is_reviewed_within_its_bounds() -> None:
    report = report_of(6, region=Rectangle(x=100, y=200, width=50, height=60))
    assert len(made(report, Change("add", x=149.9, y=200.0))) == 1
    with pytest.raises(ParameterInvalid, match="outside of what was analysed"):
        made(report, Change("add", x=150.0, y=200.0))


# Signing


def test_what_was_signed_stays_until_it_is_signed_again() -> None:
    first = made(REPORT, Change("reject", id=1), Change("add", x=10.0, y=20.0))
    signed = [*first, signature(first)]
    later = made(REPORT, Change("reject", id=2), after=signed)
    version, status, _, revision = signed_report(REPORT, later)
    assert (status, revision) == ("final", 3)
    assert [each.id for each in version.detections] == [2, 3, 4, 5, 6, 7]
    added = version.detections[-1]
    assert (added.x_um, added.y_um, added.score, added.area_um2) == (2.5, 10.0, None, None)
    assert version.counts.total == 6
    now = reviewed(REPORT, TISSUE, later)
    assert (now.counts.total, now.status, now.revision) == (5, "final", 4)
    assert now.signed
    assert now.signed.revision == 3
    again = [*later, signature(later)]
    version, status, _, revision = signed_report(REPORT, again)
    assert (status, revision, version.counts.total) == ("amended", 5, 5)
    assert version.review is None
    assert (version.analysis, version.model, version.warnings) == (REPORT.analysis, REPORT.model, REPORT.warnings)


def test_without_a_signature_it_is_the_machines() -> None:
    entries = made(REPORT, Change("reject", id=1))
    assert signed_report(REPORT, entries) == (REPORT, "preliminary", None, 0)


def test_a_later_program_does_not_count_anew_what_was_signed() -> None:
    entries = made(REPORT, Change("reject", id=1))
    signed = signature(entries)
    assert signed.counted is not None
    signed.counted["mai"]["count"] = 99  # as if it had counted otherwise then
    assert signed_report(REPORT, [*entries, signed])[0].mai.count == 99


# The store


@pytest.fixture
def analysis(engine: Engine) -> Analysis:
    return submitted(engine)


def submitted(engine: Engine) -> Analysis:
    return Analyses(engine).submit(Submission("lab", "slide", "slide.svs", {}, "model", "0" * 64))[0]


def change(engine: Engine, analysis: Analysis, revision: int, *changes: Change, by: Reviewer = BY) -> list[Entry]:
    return Reviews(engine).change(analysis, REPORT, revision, changes, by)


def test_entries_are_kept_as_they_were_made(engine: Engine, analysis: Analysis) -> None:
    reviews = Reviews(engine)
    change(engine, analysis, 0, Change("reject", id=1, reason="Apoptose"), Change("add", x=1.25, y=2.5))
    kept = reviews.sign(analysis, REPORT, TISSUE, 2, BY)
    assert reviews.entries(analysis.id) == kept
    assert [entry.revision for entry in kept] == [1, 2, 3]
    told = signed_report(REPORT, kept)
    assert told[1:] == ("final", told[2], 3)
    assert told[0].counts.total == reviewed(REPORT, TISSUE, kept).counts.total == 6
    assert json.loads(json.dumps(kept[2].counted)) == kept[2].counted


def test_all_changes_are_made_or_none(engine: Engine, analysis: Analysis) -> None:
    with pytest.raises(ParameterInvalid):
        change(engine, analysis, 0, Change("reject", id=1), Change("reject", id=77))
    assert Reviews(engine).entries(analysis.id) == []


@pytest.mark.parametrize("revision", [-1, 0, 2, 10**9])
def test_a_stale_revision_is_refused_and_told_the_current_one(
    engine: Engine, analysis: Analysis, revision: int
) -> None:
    change(engine, analysis, 0, Change("reject", id=1))
    with pytest.raises(RevisionConflict) as refused:
        change(engine, analysis, revision, Change("reject", id=2))
    assert refused.value.revision == 1
    with pytest.raises(RevisionConflict):
        Reviews(engine).sign(analysis, REPORT, TISSUE, revision, BY)
    assert len(Reviews(engine).entries(analysis.id)) == 1


def test_of_many_at_once_one_is_first(engine: Engine, analysis: Analysis) -> None:
    race(engine, analysis)


def test_of_many_at_once_one_is_first_on_postgresql(postgresql: str) -> None:
    engine = open_database(postgresql)
    analysis = submitted(engine)
    race(engine, analysis)
    kept = Reviews(engine).sign(analysis, REPORT, TISSUE, 1, BY)
    assert Reviews(engine).entries(analysis.id) == kept
    assert [entry.action for entry in audit.entries(engine)] == ["change_detections", "sign"]
    audit.verify(audit.entries(engine))
    engine.dispose()


def race(engine: Engine, analysis: Analysis) -> None:
    """Six reviewers at once."""

    def reject(number: int) -> str:
        try:
            change(engine, analysis, 0, Change("reject", id=number), by=Reviewer(f"Reviewer {number}"))
        except RevisionConflict:
            return "refused"
        return "made"

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(reject, range(1, 7)))
    assert sorted(outcomes) == ["made", *["refused"] * 5]
    [entry] = Reviews(engine).entries(analysis.id)
    assert outcomes[int(entry.reviewer.removeprefix("Reviewer ")) - 1] == "made"


def test_signing_announces_the_version_with_it_or_not_at_all(engine: Engine, analysis: Analysis) -> None:
    def announced() -> int:
        with reading(engine) as connection:
            found: int = connection.execute(select(func.count()).select_from(outbox)).scalar_one()
            return found

    with writing(engine) as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER broken BEFORE INSERT ON review_entries BEGIN SELECT RAISE(ABORT, 'the disk fails'); END"
        )
    with pytest.raises(DBAPIError, match="the disk fails"):
        Reviews(engine).sign(analysis, REPORT, TISSUE, 0, BY)
    assert (announced(), Reviews(engine).entries(analysis.id), list(audit.entries(engine))) == (0, [], [])
    with writing(engine) as connection:
        connection.exec_driver_sql("DROP TRIGGER broken")
    Reviews(engine).sign(analysis, REPORT, TISSUE, 0, BY)
    assert announced() == 1


def test_a_deleted_analysis_takes_no_decisions(engine: Engine, analysis: Analysis) -> None:
    Analyses(engine).cancel(analysis.id, "lab")
    change(engine, analysis, 0, Change("reject", id=1))
    Analyses(engine).delete(analysis.id, "lab")
    with pytest.raises(NotFound):
        change(engine, analysis, 1, Change("reject", id=2))
    assert Reviews(engine).entries(analysis.id) == []


def test_decisions_are_in_the_audit_log_by_the_same_transaction(engine: Engine, analysis: Analysis) -> None:
    change(engine, analysis, 0, Change("reject", id=1, reason="Apoptose"))
    Reviews(engine).sign(analysis, REPORT, TISSUE, 1, BY)
    with pytest.raises(RevisionConflict):
        change(engine, analysis, 0, Change("reject", id=2))
    decision, signed = audit.entries(engine)
    assert (decision.actor, decision.action, decision.object) == (BY.key_id, "change_detections", analysis.id)
    assert decision.detail["decisions"] == [{"action": "reject", "detection_id": 1, "reason": "Apoptose"}]
    assert (signed.action, signed.detail["revision"], signed.detail["reviewer"]) == ("sign", 2, BY.name)
