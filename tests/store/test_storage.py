"""Files of the data directory: whole or not there, on full disks, in any order, and never outside."""

import asyncio
import hashlib
import multiprocessing
import os
import signal
import uuid
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from service.errors import OutputUnwritable, StorageFull
from service.files import free_bytes
from service.refusals import DatabaseUnavailable, NotFound, OffsetConflict, UploadTooLarge
from service.store import audit, keys
from service.store.database import open_database
from service.store.storage import BUFFER_BYTES, Incoming, Storage, part_path
from tests.disks import fill, small_disk

CONTENT = np.random.default_rng(0).bytes(3 * BUFFER_BYTES + 12_345)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "data")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Storage]:
    with small_disk(tmp_path / "disk", "size=8m") as disk:
        yield Storage(disk)


@pytest.mark.parametrize(("mode", "after"), [(0o755, 0o700), (0o770, 0o700), (0o1777, 0o1777)])
def test_a_data_directory_of_ours_is_closed_to_others(storage: Storage, mode: int, after: int) -> None:
    storage.folder.chmod(mode)
    storage.results.chmod(0o755)
    Storage(storage.folder)
    assert [path.stat().st_mode & 0o7777 for path in (storage.folder, storage.results)] == [after, 0o700]


def test_a_folder_where_everybody_may_swap_files_is_no_data_directory(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(OutputUnwritable, match="written to by everybody"):
        Storage(tmp_path / "open")


def pieces(content: bytes, size: int = 100_000) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def send(incoming: Incoming, content: bytes = CONTENT) -> None:
    for piece in pieces(content):
        await incoming.write(piece)


def part_of(storage: Storage) -> str:
    """An upload that can be resumed."""
    upload_id = str(uuid.uuid4())
    part_path(storage, upload_id).touch()
    return upload_id


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Writing


def test_an_upload_is_hashed_as_it_comes_and_gone_when_it_is_left(storage: Storage) -> None:
    async def upload() -> None:
        async with Incoming(storage, len(CONTENT)) as incoming:
            await send(incoming)
            assert await incoming.finish() == SHA256
            assert incoming.path.read_bytes() == CONTENT
            assert incoming.size == len(CONTENT)

    asyncio.run(upload())
    assert names(storage.incoming) == []


def test_an_upload_without_bytes_is_one_of_no_bytes(storage: Storage) -> None:
    async def upload() -> str:
        async with Incoming(storage, 10) as incoming:
            return await incoming.finish()

    assert asyncio.run(upload()) == hashlib.sha256().hexdigest()


def test_an_upload_ends_at_its_limit(storage: Storage) -> None:
    async def upload(limit: int) -> None:
        async with Incoming(storage, limit) as incoming:
            await send(incoming)

    asyncio.run(upload(len(CONTENT)))
    with pytest.raises(UploadTooLarge, match=str(len(CONTENT) - 1)):
        asyncio.run(upload(len(CONTENT) - 1))
    assert names(storage.incoming) == []


def test_what_came_before_an_interruption_stays_and_is_gone_on_with(storage: Storage) -> None:
    upload_id, offset = part_of(storage), 1_234_567

    async def upload(start: int, end: int, *, interrupted: bool) -> str:
        async with Incoming(storage, len(CONTENT), resumed=upload_id) as incoming:
            assert incoming.size == start
            await send(incoming, CONTENT[start:end])
            if interrupted:
                raise ConnectionError
            return await incoming.finish()

    with pytest.raises(ConnectionError):
        asyncio.run(upload(0, offset, interrupted=True))
    assert part_path(storage, upload_id).read_bytes() == CONTENT[:offset]
    assert asyncio.run(upload(offset, len(CONTENT), interrupted=False)) == SHA256


def test_only_one_request_at_a_time_writes_to_an_upload(storage: Storage) -> None:
    upload_id = part_of(storage)

    async def upload() -> None:
        async with Incoming(storage, 10, resumed=upload_id) as first:
            with pytest.raises(OffsetConflict):
                await Incoming(storage, 10, resumed=upload_id).__aenter__()
            with pytest.raises(OffsetConflict):
                storage.delete_upload(upload_id)
            await first.write(b"0123456789")
        async with Incoming(storage, 10, resumed=upload_id) as second:
            assert second.size == 10

    asyncio.run(upload())
    storage.delete_upload(upload_id)
    with pytest.raises(NotFound):
        storage.delete_upload(upload_id)


def hold(folder: Path, upload_id: str, told: Connection) -> None:
    async def upload() -> None:
        async with Incoming(Storage(folder), 100, resumed=upload_id):
            told.send("open")
            await asyncio.sleep(60)

    asyncio.run(upload())


def test_the_lock_of_a_process_that_was_killed_is_free(storage: Storage) -> None:
    upload_id = part_of(storage)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=hold, args=(storage.folder, upload_id, there))
    process.start()
    assert here.poll(30)
    with pytest.raises(OffsetConflict):
        storage.delete_upload(upload_id)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    storage.delete_upload(upload_id)


# Full disks


def test_what_is_announced_larger_than_the_disk_is_refused(small: Storage) -> None:
    free = free_bytes(small.folder)
    assert 0 < free < 8 << 20
    small.require_room(free)
    with pytest.raises(StorageFull):
        small.require_room(free + 1)


def test_an_upload_that_fills_the_disk_leaves_nothing_and_the_next_one_fits(small: Storage) -> None:
    async def upload(content: bytes) -> str:
        async with Incoming(small, 1 << 30) as incoming:
            await send(incoming, content)
            return await incoming.finish()

    with pytest.raises(StorageFull, match="room"):
        asyncio.run(upload(CONTENT * 4))
    assert names(small.incoming) == []
    assert asyncio.run(upload(CONTENT)) == SHA256


def test_a_resumed_upload_waits_for_room_and_goes_on(small: Storage) -> None:
    upload_id, filler = part_of(small), small.folder / "filler"
    filler.write_bytes(bytes(6 << 20))

    async def upload() -> str:
        async with Incoming(small, len(CONTENT), resumed=upload_id) as incoming:
            await send(incoming, CONTENT[incoming.size :])
            return await incoming.finish()

    with pytest.raises(StorageFull):
        asyncio.run(upload())
    kept = part_path(small, upload_id).read_bytes()
    assert kept
    assert CONTENT.startswith(kept)
    filler.unlink()
    assert asyncio.run(upload()) == SHA256


def test_a_disk_without_room_for_one_more_name_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=8m,nr_inodes=6") as disk:
        storage = Storage(disk)
        for number in range(2):
            (disk / str(number)).touch()
        with pytest.raises(StorageFull):
            asyncio.run(Incoming(storage, 10).__aenter__())
        with pytest.raises(StorageFull):
            storage.new_folder()
        with pytest.raises(StorageFull):
            storage.result_folder(str(uuid.uuid4()))


def test_a_disk_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=1m,ro") as disk, pytest.raises(OutputUnwritable, match="Read-only"):
        Storage(disk / "data")


@pytest.mark.parametrize("room_kib", [8, 100])
def test_a_disk_that_fills_while_the_database_is_made_or_written_to_loses_nothing(
    tmp_path: Path, room_kib: int
) -> None:
    with small_disk(tmp_path / "disk", "size=3m") as disk:
        url, ballast = f"sqlite:///{disk / 'jobs.sqlite3'}", disk / "ballast"
        ballast.write_bytes(bytes((3 << 20) - (room_kib << 10)))
        with pytest.raises(DatabaseUnavailable, match="disk"):
            open_database(url)
        ballast.unlink()
        engine = open_database(url)
        audit.record(engine, "lab", "somebody", "before", "a")
        filler = fill(disk)
        audit.record(engine, "lab", "somebody", "meanwhile", "a" * 8000)  # nobody is refused a result for it
        with pytest.raises(DatabaseUnavailable, match="full"):
            keys.create(engine, "a" * 60, "lab", ["read"])
        filler.unlink()
        audit.write_late(engine)
        assert [entry.action for entry in audit.entries(engine)] == ["before", "meanwhile"]
        assert audit.verify(audit.entries(engine))[0] == 2
        engine.dispose()


# Places


@pytest.mark.parametrize("name", ["../x", "", "a/b", "..", "\0", "x" * 36, "f6a1c7de-8a3b-4d5e-9c01-2b3c4d5e6f70/.."])
def test_only_ids_become_paths(storage: Storage, name: str) -> None:
    for place in (storage.result_folder, storage.delete_result, storage.slide_folder, storage.delete_upload):
        with pytest.raises(ValueError):
            place(name)


def put_together(storage: Storage, content: bytes) -> Path:
    folder = storage.new_folder()
    (folder / "slide.svs").write_bytes(content)
    return folder


def test_equal_content_is_kept_once(storage: Storage) -> None:
    with storage.locked():
        kept = [storage.keep(put_together(storage, b"same"), SHA256) for _ in range(2)]
    assert kept[0] == kept[1] == storage.slide_folder(SHA256)
    assert list(storage.stored()) == [SHA256]
    assert names(kept[0]) == ["slide.svs"]


def test_a_slide_is_deleted_and_deleting_it_again_does_nothing(storage: Storage) -> None:
    with storage.locked():
        storage.keep(put_together(storage, b"x"), SHA256)
        storage.delete_slide(SHA256)
        storage.delete_slide(SHA256)
    assert list(storage.stored()) == []
    assert names(storage.incoming) == []


def test_results_are_deleted_with_their_folder(storage: Storage) -> None:
    analysis_id = str(uuid.uuid4())
    (storage.result_folder(analysis_id) / "report.json").write_bytes(b"{}")
    storage.delete_result(analysis_id)
    storage.delete_result(analysis_id)
    assert names(storage.results) == []


def test_what_is_stored_is_for_the_service_alone(storage: Storage) -> None:
    for folder in (storage.incoming, storage.slides, storage.results, storage.new_folder()):
        assert folder.stat().st_mode & 0o077 == 0
