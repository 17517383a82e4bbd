"""Names, equal content, and what is kept for how long."""

import asyncio
import hashlib
import multiprocessing
import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from service.errors import ArchiveUnsafe, NotASlide, StorageFull
from service.intake.accept import forget_uploads
from service.intake.sandbox import Sandbox
from service.refusals import NotFinished, NotFound
from service.slide import Box, open_slide
from service.store.analyses import Analyses
from service.store.database import slides
from service.store.records import Submission
from service.store.slides import StoredSlide, delete_slide, find_slide, forget_slides, open_stored
from service.store.storage import Incoming, Storage, part_path
from tests.databases import job_store
from tests.disks import small_disk
from tests.intake.stores import DAY_S, Stores
from tests.slides import draw_tissue, write_svs
from tests.zips import write_zip, zip_folder


def svs(tmp_path: Path, seed: int = 0) -> bytes:
    return write_svs(tmp_path / f"{seed}.svs", draw_tissue(300, 200, seed)).read_bytes()


# Uploads


def test_an_upload_becomes_a_slide(stores: Stores, tmp_path: Path) -> None:
    content = svs(tmp_path)
    stored = stores.uploaded(content, "../case\0 7.svs")
    assert stored == find_slide(stores.engine, "lab", stored.id)
    assert (stored.name, stored.size, stored.sha256) == (
        "case 7.svs",
        len(content),
        hashlib.sha256(content).hexdigest(),
    )
    assert stores.slide_files() == [stored.path] == [f"slides/{stored.sha256}/slide.svs"]
    with open_slide(tmp_path / "0.svs", name="case 7.svs") as slide, open_stored(stores.storage, stored) as copy:
        assert stored.facts == {**slide.describe(), "mpp": [0.25, 0.25], "claimed_mpp": [0.25, 0.25]} | {
            "levels": [[300, 200]]
        }
        assert copy.describe() == slide.describe()
        np.testing.assert_array_equal(copy.read(Box(0, 0, 300, 200)), slide.read(Box(0, 0, 300, 200)))


@pytest.mark.parametrize(
    ("name", "file"),
    [("a.SVS", "slide.svs"), ("a", "slide"), ("a.s v", "slide"), ("a.ndpiöö", "slide"), ("a.tar.gz", "slide.gz")],
)
def test_on_the_disk_only_a_safe_suffix_is_the_clients(stores: Stores, tmp_path: Path, name: str, file: str) -> None:
    assert Path(stores.uploaded(svs(tmp_path), name).path).name == file


@pytest.mark.parametrize("content", [b"", b"Dear colleague", b"PK\5\6" + bytes(18)])
def test_what_is_no_slide_leaves_nothing(stores: Stores, content: bytes) -> None:
    with pytest.raises(NotASlide):
        stores.uploaded(content)
    assert stores.slide_files() == []
    assert stores.rows() == 0


def test_equal_content_is_stored_once_and_a_row_for_each_name_and_tenant(stores: Stores, tmp_path: Path) -> None:
    content = svs(tmp_path)

    async def all_at_once() -> list[StoredSlide]:
        asked = [("a.svs", "lab"), ("a.svs", "lab"), ("b.tif", "lab"), ("a.svs", "other"), ("a.svs", "lab")]
        return await asyncio.gather(*(stores.upload(content, name, tenant) for name, tenant in asked))

    found = asyncio.run(all_at_once())
    assert found[0].id == found[1].id == found[4].id
    assert len({each.id for each in found}) == stores.rows() == 3
    assert len({each.path for each in found}) == 1
    assert stores.slide_files() == [found[0].path]
    assert [each.facts["name"] for each in found] == ["a.svs", "a.svs", "b.tif", "a.svs", "a.svs"]


def upload_elsewhere(folder: Path, content: bytes, names: list[str]) -> None:
    engine = job_store(folder)
    with Sandbox() as sandbox:
        stores = Stores(engine, Storage(folder), sandbox)
        for name in names:
            stores.uploaded(content, name)


def test_two_gateways_store_equal_content_once(stores: Stores, tmp_path: Path) -> None:
    content, context = svs(tmp_path), multiprocessing.get_context("spawn")
    names = [f"{number}.svs" for number in range(8)]
    processes = [
        context.Process(target=upload_elsewhere, args=(stores.storage.folder, content, names)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert stores.rows() == 8
    assert len(stores.slide_files()) == 1


def test_an_upload_whose_file_was_lost_is_stored_again(stores: Stores, tmp_path: Path) -> None:
    stored = stores.uploaded(svs(tmp_path))
    stores.storage.delete_slide(stored.sha256)
    assert stores.uploaded(svs(tmp_path)) == stored
    assert stores.slide_files() == [stored.path]


def test_a_full_disk_keeps_nothing_of_an_upload(sandbox: Sandbox, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=4m,nr_inodes=14") as disk:
        engine = job_store(tmp_path)
        stores = Stores(engine, Storage(disk), sandbox)
        fillers = [disk / f"filler{number}" for number in range(5)]
        for filler in fillers:
            filler.touch()
        with pytest.raises(StorageFull):  # there are names left for its bytes, but not for its folder
            stores.upload_many(svs(tmp_path, seed) for seed in range(10))
        kept = stores.rows()
        assert len(stores.slide_files()) == kept
        for filler in fillers:
            filler.unlink()
        stores.uploaded(svs(tmp_path, seed=99))
        assert stores.rows() == kept + 1
        engine.dispose()


# Zips


def test_a_zip_of_one_file_is_that_slide(stores: Stores, tmp_path: Path) -> None:
    content = svs(tmp_path)
    zipped = write_zip(tmp_path / "a.zip", {"case/scan 1.svs": content, "case/notes.txt": b"none"}).read_bytes()
    stored = stores.uploaded(zipped, "parcel.zip")
    assert (stored.name, stored.facts["name"], stored.size) == ("scan 1.svs", "scan 1.svs", len(zipped))
    assert stored.sha256 == hashlib.sha256(zipped).hexdigest()
    assert stored.facts["sha256"] == hashlib.sha256(content).hexdigest()
    assert stored.path == f"slides/{stored.sha256}/unpacked/case/scan 1.svs"
    assert stores.uploaded(zipped, "other parcel.zip").id == stored.id
    assert not [path for path in stores.files() if path.startswith("incoming")]


@pytest.mark.parametrize(("inside", "name"), [("", "boxes"), ("case 7/", "case 7")])
def test_a_dicom_folder_comes_as_a_zip(stores: Stores, shared: Path, tmp_path: Path, inside: str, name: str) -> None:
    boxes = shared / "data/slides/dicom-boxes"
    stored = stores.uploaded(zip_folder(tmp_path / "a.zip", boxes, inside).read_bytes(), "boxes.ZIP")
    with open_slide(boxes, name=name) as slide, open_stored(stores.storage, stored) as copy:
        assert stored.name == name
        assert stored.facts["sha256"] == slide.sha256
        assert copy.describe() == slide.describe()


def test_a_hostile_zip_leaves_nothing(stores: Stores, tmp_path: Path) -> None:
    content = svs(tmp_path)
    for entries in ({"a.svs": content, "b.svs": content}, {"a.svs": content, "../../out.svs": content}):
        with pytest.raises(ArchiveUnsafe):
            stores.uploaded(write_zip(tmp_path / "a.zip", entries).read_bytes(), "a.zip")
    with pytest.raises(NotASlide, match="holds no slide"):
        stores.uploaded(write_zip(tmp_path / "a.zip", {"a.txt": b"1"}).read_bytes(), "a.zip")
    assert stores.slide_files() == []
    assert not list(tmp_path.rglob("out.svs"))


# Finding, deleting, forgetting


def analyse(stores: Stores, stored: StoredSlide) -> str:
    submission = Submission("lab", stored.id, stored.name, {"parts": None}, "model", "0" * 64)
    return Analyses(stores.engine).submit(submission)[0].id


def test_somebody_elses_slide_is_as_unknown_as_none(stores: Stores, tmp_path: Path) -> None:
    stored = stores.uploaded(svs(tmp_path))
    for tenant, slide_id in (("other", stored.id), ("lab", str(uuid.uuid4())), ("lab", "x" * 5000), ("lab", "\0")):
        with pytest.raises(NotFound):
            find_slide(stores.engine, tenant, slide_id)
        with pytest.raises(NotFound):
            delete_slide(stores.engine, stores.storage, tenant, slide_id)
    assert stores.slide_files() == [stored.path]


def test_a_slide_is_deleted_with_its_last_row(stores: Stores, tmp_path: Path) -> None:
    content = svs(tmp_path)
    first, second = stores.uploaded(content), stores.uploaded(content, tenant="other")
    delete_slide(stores.engine, stores.storage, "lab", first.id)
    assert stores.slide_files() == [second.path]
    delete_slide(stores.engine, stores.storage, "other", second.id)
    assert stores.slide_files() == []


def test_a_slide_is_not_deleted_while_an_analysis_needs_it(stores: Stores, tmp_path: Path) -> None:
    stored = stores.uploaded(svs(tmp_path))
    analysis_id = analyse(stores, stored)
    stores.age(stored, 100)
    with pytest.raises(NotFinished):
        delete_slide(stores.engine, stores.storage, "lab", stored.id)
    forget_slides(stores.engine, stores.storage, time.time())
    assert stores.slide_files() == [stored.path]
    Analyses(stores.engine).cancel(analysis_id, "lab")
    delete_slide(stores.engine, stores.storage, "lab", stored.id)
    assert stores.slide_files() == []


def test_what_was_not_used_for_long_is_forgotten(stores: Stores, tmp_path: Path) -> None:
    old, used, new = (stores.uploaded(svs(tmp_path, seed)) for seed in range(3))
    for stored in (old, used):
        stores.age(stored, 15)
    assert find_slide(stores.engine, "lab", used.id).id == used.id
    assert find_slide(stores.engine, "lab", old.id, use=False).id == old.id
    forget_slides(stores.engine, stores.storage, time.time() - 14 * DAY_S)
    assert stores.slide_files() == sorted([used.path, new.path])
    with pytest.raises(NotFound):
        find_slide(stores.engine, "lab", old.id)


def test_files_that_a_dead_process_left_without_a_row_are_deleted(stores: Stores, tmp_path: Path) -> None:
    stored = stores.uploaded(svs(tmp_path))
    with stores.storage.locked():
        stores.storage.keep(stores.storage.new_folder(), "f" * 64)
    forget_slides(stores.engine, stores.storage, 0)
    assert list(stores.storage.stored()) == [stored.sha256]


def test_deleting_and_uploading_the_same_at_once_never_leaves_a_slide_without_its_file(
    stores: Stores, tmp_path: Path
) -> None:
    content, over = svs(tmp_path), threading.Event()

    def delete_always() -> None:
        while not over.is_set():
            forget_slides(stores.engine, stores.storage, time.time() + 1)

    deleting = threading.Thread(target=delete_always)
    deleting.start()
    try:
        for number in range(25):
            stores.uploaded(content, f"{number % 3}.svs")
    finally:
        over.set()
        deleting.join()
    with stores.engine.connect() as connection:
        paths = list(connection.execute(select(slides.c.path)).scalars())
    assert all((stores.storage.folder / path).is_file() for path in paths)
    assert len(stores.slide_files()) == bool(paths)


def aged(path: Path, seconds: float) -> Path:
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def test_uploads_without_a_byte_for_a_day_are_forgotten(stores: Stores) -> None:
    incoming, ids = stores.storage.incoming, [str(uuid.uuid4()) for _ in range(6)]

    def put(upload_id: str, suffix: str, hours: float) -> Path:
        (path := incoming / f"{upload_id}{suffix}").touch()
        return aged(path, hours * 3600)

    put(ids[0], ".part", 1), put(ids[0], ".json", 99)  # resumable
    put(ids[1], ".part", 25), put(ids[1], ".json", 25)  # too old
    put(ids[2], ".part", 1)  # of a gateway that died: nobody can go on with it
    put(ids[3], ".json", 23)  # complete, its slide can still be asked for
    put(ids[4], ".json", 25)
    put(ids[5], ".part", 0)  # has just begun
    for name, hours in (("new", 1), ("old", 25)):
        (incoming / f"{name}.new").mkdir()
        aged(incoming / f"{name}.new", hours * 3600)
    forget_uploads(stores.storage, time.time())
    expected = {f"{ids[0]}.part", f"{ids[0]}.json", f"{ids[3]}.json", f"{ids[5]}.part", "new.new"}
    assert {path.name for path in incoming.iterdir()} == expected


def test_an_upload_on_its_way_is_not_forgotten_however_slow(stores: Stores) -> None:
    async def upload() -> None:
        async with Incoming(stores.storage, 100) as incoming:
            aged(incoming.path, 100 * 3600)
            forget_uploads(stores.storage, time.time())
            assert incoming.path.exists()

    asyncio.run(upload())
    resumed = str(uuid.uuid4())
    part_path(stores.storage, resumed).touch()

    async def resume() -> None:
        async with Incoming(stores.storage, 100, resumed=resumed) as incoming:
            aged(incoming.path, 100 * 3600)
            forget_uploads(stores.storage, time.time())
            assert incoming.path.exists()

    asyncio.run(resume())


def test_facts_are_plain_json(stores: Stores, tmp_path: Path) -> None:
    facts: dict[str, Any] = stores.uploaded(svs(tmp_path)).facts
    assert facts["mpp"] == [0.25, 0.25]
    assert facts["reader"] == "openslide"
