"""Uploaded slides that rot are found when all is looked at; taking in and forgetting: intake/test_accept.py."""

from pathlib import Path

from sqlalchemy import Engine

from service.slide import open_slide
from service.store import audit
from service.store.analyses import Analyses
from service.store.records import Submission
from service.store.slides import SlideRow, StoredSlide, check_slides, list_slides, remember_slide
from service.store.storage import Storage
from tests.slides import draw_tissue, write_svs


def stored(engine: Engine, storage: Storage, seed: int) -> StoredSlide:
    """A slide as an upload leaves it."""
    path = write_svs(storage.folder / "slide.svs", draw_tissue(300, 200, seed=seed))
    with open_slide(path) as slide:
        row = SlideRow("lab", slide.sha256, "slide.svs", path.stat().st_size, slide.describe())
    target = storage.slide_folder(row.sha256) / path.name
    target.parent.mkdir()
    path.rename(target)
    return remember_slide(engine, row, str(target.relative_to(storage.folder)))


def test_slides_that_are_not_what_was_stored_are_found(engine: Engine, tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    sound, rotten, gone = (stored(engine, storage, seed) for seed in range(3))
    path = storage.folder / rotten.path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (storage.folder / gone.path).unlink()
    found = dict(check_slides(engine, storage))
    assert found.pop(sound.id) is None
    assert {each: str(what)[: len(each) + 33] for each, what in found.items()} == {
        each.id: f"the slide {each.id} is not what was stored" for each in (rotten, gone)
    }
    noted = {entry.object for entry in audit.entries(engine) if entry.action == "find_damage"}
    assert noted == {rotten.id, gone.id}


def test_slides_wait_until_an_analysis_is_asked_for(engine: Engine) -> None:
    found = [remember_slide(engine, SlideRow("lab", f"{number:064}", "s", 1, {}), "p") for number in range(3)]
    newest = [each.id for each in reversed(found)]
    first, cursor = list_slides(engine, "lab", limit=2)
    rest, end = list_slides(engine, "lab", limit=2, cursor=cursor)
    assert [each.id for each in first + rest] == newest
    assert end is None
    analyses, submission = Analyses(engine), Submission("lab", newest[1], "s", {}, "m", "0" * 64)
    both = [analyses.submit(submission)[0] for _ in range(2)]
    assert waiting(engine) == [newest[0], newest[2]]
    assert [each.id for each in list_slides(engine, "lab", analysed=True)[0]] == [newest[1]]
    for analysis, left in zip(both, (2, 3), strict=True):
        analyses.cancel(analysis.id, "lab")
        analyses.delete(analysis.id, "lab")
        assert len(waiting(engine)) == left
    assert list_slides(engine, "another") == ([], None)


def waiting(engine: Engine) -> list[str]:
    return [each.id for each in list_slides(engine, "lab", analysed=False)[0]]
