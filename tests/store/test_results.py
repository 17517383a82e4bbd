"""What an analysis left: read as it was written or not at all, wherever it is read, and when all is looked at."""

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, update

from service.errors import StoredDamaged, StoredNewer
from service.probability_map import ProbabilityMap
from service.quality import QualityMap
from service.refusals import NotFinished, NotFound
from service.store.analyses import Analyses
from service.store.audit import entries
from service.store.database import analyses, open_database, writing
from service.store.records import Submission
from service.store.results import (
    KINDS,
    Result,
    check_all,
    keep_copy,
    kept_copy,
    remove_leftovers,
    write_result,
)
from service.store.storage import Storage
from service.store.summaries import fill
from service.tiling import Lattice
from service.tissue import TissueMask
from tests.databases import job_store
from tests.export.hospital import report_of

SIZE = (1200, 900)
TISSUE = QualityMap(TissueMask(np.full((10, 10), 255, np.uint8), (120, 90), (0.25, 0.25)), np.zeros((10, 10), np.uint8))
DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "a bit turned": lambda path: path.write_bytes(turned(path.read_bytes())),
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
}


def turned(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


class Stored:
    """A data directory with results in it."""

    def __init__(self, folder: Path, database: str | None = None) -> None:
        self.folder, self.storage = folder, Storage(folder)
        self.engine: Engine = open_database(database) if database else job_store(folder)
        self.analyses = Analyses(self.engine)

    def succeeded(self, *, checksums: bool = True) -> Result:
        """A result of two arrays and a report; without checksums of the arrays, as earlier releases kept it."""
        analysis, _ = self.analyses.submit(Submission("lab", "slide", "slide.svs", {}, "model", "0" * 64))
        claim = self.analyses.claim(self.analyses.to_send(analysis.id)[0][0])
        assert claim
        folder = self.storage.result_folder(analysis.id)
        TISSUE.save(folder / "map.tissue")
        lattice = Lattice.of(*SIZE, (1.0, 1.0), 16)
        values = np.zeros((lattice.rows, lattice.columns), np.float32)
        for number, probability in enumerate((0.9, 0.45, 0.2, 0.4), start=1):  # the threshold is 0.5
            values[10 * number, 20] = probability
        ProbabilityMap(lattice, values).save(folder / "map.map")
        arrays = {kind: folder / f"map.{kind}" for kind in ("map", "tissue")}
        digest, files = write_result(folder, report_of(3, mpp=(0.25, 0.25)).to_json().encode(), arrays)
        assert self.analyses.succeed(claim, digest, files if checksums else None)
        return self.result(analysis.id)

    def rewritten(self, result: Result, kind: str, content: bytes) -> Result:
        """The same result had another release written a file of it."""
        values: dict[str, Any] = {"files": {**result.files, kind: hashlib.sha256(content).hexdigest()}}
        if kind == "report":
            values = {"result_sha256": hashlib.sha256(content).hexdigest()}
        with writing(self.engine) as connection:
            connection.execute(update(analyses).where(analyses.c.id == result.analysis_id).values(**values))
        found = self.result(result.analysis_id)
        for each in KINDS:
            result.path(each).rename(found.path(each))
        found.path(kind).write_bytes(content)
        return found

    def result(self, analysis_id: str) -> Result:
        return Result.of(self.engine, self.storage, self.analyses.get(analysis_id, "lab"))

    def audited(self) -> list[tuple[str, str, Any]]:
        return [(each.action, each.object, each.detail.get("file")) for each in entries(self.engine)]

    def verify(self, *words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "service", "verify", *words, "--data-dir", str(self.folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    made = Stored(tmp_path)
    yield made
    made.engine.dispose()


READ: dict[str, Callable[[Result], object]] = {
    "report": lambda result: result.content(),
    "map": lambda result: result.probabilities(),
    "tissue": lambda result: result.quality(),
}


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_as_it_was_written_is_not_read_and_is_noted_until_it_is_mended(
    stored: Stored, kind: str, damage: str
) -> None:
    result, other = stored.succeeded(), stored.succeeded()
    READ[kind](result)
    path = result.path(kind)
    content = path.read_bytes()
    DAMAGE[damage](path)
    for _ in range(2):
        with pytest.raises(StoredDamaged, match=f"the {kind} of analysis {result.analysis_id}"):
            READ[kind](result)
    READ[kind](other)
    assert stored.analyses.statistics().results_damaged == 1
    assert stored.audited() == [("find_damage", result.analysis_id, kind)], "once"
    found = dict(check_all(stored.engine, stored.storage))
    assert found.pop(other.analysis_id) == []
    assert [line.split(" is not")[0] for line in found[result.analysis_id]] == [
        f"the {kind} of analysis {result.analysis_id}"
    ]
    path.write_bytes(content)
    assert not any(wrong for _, wrong in check_all(stored.engine, stored.storage))
    assert stored.analyses.statistics().results_damaged == 0
    READ[kind](result)
    assert ("damage_mended", result.analysis_id, None) in stored.audited()


NEWER: dict[str, Callable[[bytes], bytes]] = {
    "report of another schema": lambda content: content.replace(b'"schema_version": "1"', b'"schema_version": "2"'),
    "report of another shape": lambda content: content.replace(b'"circle"', b'"hexagon"'),
    "map": lambda _: arrays_of(probabilities=np.zeros(3)),
    "tissue": lambda _: arrays_of(coverage=np.zeros(3)),
}


def arrays_of(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


@pytest.mark.parametrize("change", NEWER)
def test_what_a_later_release_wrote_is_no_damage_and_holds_up_nothing_else(stored: Stored, change: str) -> None:
    kind = change.partition(" ")[0]
    other, result = stored.succeeded(), stored.succeeded()
    result = stored.rewritten(result, kind, NEWER[change](result.path(kind).read_bytes()))
    with pytest.raises(StoredNewer, match=r"start the later release that wrote it \(1.2.3\)"):
        (Result.report if kind == "report" else READ[kind])(result)
    assert not any(wrong for _, wrong in check_all(stored.engine, stored.storage))
    assert stored.analyses.statistics().results_damaged == 0
    fill(stored.engine, stored.storage)
    assert stored.analyses.get(other.analysis_id, "lab").summary


def test_what_is_mended_has_its_line_in_the_list_again(stored: Stored) -> None:
    result = stored.succeeded()
    content = result.content()
    result.path("report").write_bytes(b"")
    fill(stored.engine, stored.storage)
    assert stored.analyses.get(result.analysis_id, "lab").summary == {}
    result.path("report").write_bytes(content)
    list(check_all(stored.engine, stored.storage))
    fill(stored.engine, stored.storage)
    assert stored.analyses.get(result.analysis_id, "lab").summary


def test_a_count_that_somebody_edited_is_not_served(stored: Stored) -> None:
    result = stored.succeeded()
    edited = json.loads(result.content())
    edited["mai"]["count"] += 1
    result.path("report").write_text(json.dumps(edited))
    with pytest.raises(StoredDamaged):
        result.report()


def test_an_array_that_was_put_in_another_s_place_is_none(stored: Stored) -> None:
    result = stored.succeeded()
    ProbabilityMap.empty(Lattice.of(*SIZE, (1.0, 1.0), 16)).save(result.path("map"))
    with pytest.raises(StoredDamaged):
        result.candidates(0.3)


@pytest.mark.parametrize("damage", ["cut short", "a bit turned", "empty"])
def test_of_results_of_before_damage_is_told_too(stored: Stored, damage: str) -> None:
    result = stored.succeeded(checksums=False)
    assert result.probabilities() is not None
    DAMAGE[damage](result.path("map"))
    with pytest.raises(StoredDamaged):
        result.probabilities()
    result.path("tissue").unlink()
    assert result.quality() is None, "a release that kept none"
    with pytest.raises(NotFinished):
        result.glass()


def test_a_result_that_was_deleted_meanwhile_is_not_found(stored: Stored) -> None:
    result = stored.succeeded()
    stored.analyses.delete(result.analysis_id, "lab")
    stored.storage.delete_result(result.analysis_id)
    with pytest.raises(NotFound):
        result.content()


def test_all_results_are_looked_at_page_by_page(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.results.PAGE", 2)
    made = [stored.succeeded().analysis_id for _ in range(5)]
    assert dict(check_all(stored.engine, stored.storage)) == {each: [] for each in made}


def test_candidates_lie_between_the_probability_asked_for_and_the_threshold(stored: Stored) -> None:
    result = stored.succeeded()
    found = result.candidates(0.3)
    assert [(each.id, each.score, each.x, each.y) for each in found] == [(1, 0.45, 320, 320), (2, 0.4, 320, 640)]
    assert result.candidates(0.5) == []
    analysis = stored.analyses.get(result.analysis_id, "lab")
    with pytest.raises(NotFinished, match="queued"):
        Result.of(stored.engine, stored.storage, replace(analysis, status="queued"))


def test_what_starts_left_that_never_counted_goes_when_one_counts(stored: Stored) -> None:
    result = stored.succeeded()
    left = ("report-1.json", "report-1.json.x.partial", "map-1.npz", "tissue-1.npz", "plan.npz", "map.whole.0.1.npz")
    others = {"thumbnail-slide.0.png", "a drawing.partial", "a drawing.partial.x.partial", "a drawing.partial.jpg"}
    for name in (*left, *others):
        (result.folder / name).write_bytes(b"x")
    remove_leftovers(result.folder, result.sha256)
    mine = [result.path(kind).name for kind in ("map", "report", "tissue")]
    assert {path.name for path in result.folder.iterdir()} == {*mine, *others}


def test_a_picture_that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    assert kept_copy(tmp_path, "overlay-1", "png") is None
    keep_copy(tmp_path, "overlay-1", "png", b"a picture")
    assert kept_copy(tmp_path, "overlay-1", "png") == b"a picture"
    [path] = tmp_path.iterdir()
    path.write_bytes(b"a pictura")
    assert kept_copy(tmp_path, "overlay-1", "png") is None
    assert not path.exists()


def test_the_command_lists_what_is_damaged_and_fails(stored: Stored) -> None:
    stored.succeeded()
    told = stored.verify("--stored")
    assert (told.returncode, told.stdout) == (0, "")
    result = stored.succeeded()
    DAMAGE["cut short"](result.path("map"))
    told = stored.verify("--stored")
    assert told.returncode == 1
    assert [line.split(" is not")[0] for line in told.stdout.splitlines()] == [
        f"the map of analysis {result.analysis_id}"
    ]
    assert told.stderr.splitlines()[-1] == "2 results, 1 of them damaged."
    assert ("verify_stored", "", None) in stored.audited()
    for words in ([], ["some-id", "--stored"]):
        told = stored.verify(*words)
        assert (told.returncode, told.stderr.split(":")[1]) == (2, " parameter-invalid")
