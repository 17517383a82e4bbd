"""Slides in object storage: read by ranges, the same as the file, and what happens to them or to the storage, said."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from service.errors import FileMissing, MitosisError, SlideChanged, SourceForbidden
from service.intake.sandbox import Sandbox
from service.location import Location
from service.refusals import SourceUnavailable
from service.slide import Box, open_slide
from service.store.slides import open_stored
from service.store.storage import Storage
from tests.databases import job_store
from tests.intake.stores import Stores
from tests.object_storage import BUCKET, ObjectStorage, running_storage
from tests.slides import Rgb, damage_tile, draw_tissue, pyramid_of, write_pyramid

PLACE = Box(1000, 700, 300, 200)
URL = f"s3://{BUCKET}/lab/slide.tif"


@pytest.fixture(scope="module")
def storage() -> Iterator[ObjectStorage]:
    with running_storage() as found:
        yield found


@cache
def pixels() -> Rgb:
    """Large enough for a slide of some megabytes; drawn where it is used, not in each worker that collects."""
    return draw_tissue(3200, 2400)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_pyramid(tmp_path_factory.mktemp("drawn") / "slide.tif", pyramid_of(pixels(), 3)).read_bytes()


@pytest.fixture
def path(storage: ObjectStorage, drawn: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A slide as a file; its bytes are an object, too."""
    for name, value in storage.environment.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "slide.tif"
    path.write_bytes(drawn)
    put(storage, path)
    yield path
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # of this environment


def put(storage: ObjectStorage, path: Path) -> None:
    storage.put("lab/slide.tif", path.read_bytes())


def accepted() -> Location:
    with open_slide(URL) as slide:
        return Location(URL, sha256=slide.sha256, fingerprint=slide.fingerprint)


def test_a_slide_is_read_by_ranges_and_is_the_same_as_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system, ranges = fsspec.get_filesystem_class("s3"), []
    call = system._call_s3

    async def counted(self: Any, method: str, *given: Any, **more: Any) -> Any:
        answer = await call(self, method, *given, **more)
        if method == "get_object":
            ranges.append(answer["ContentLength"])
        return answer

    monkeypatch.setattr(system, "_call_s3", counted)  # it is still the one that reads
    with open_slide(URL) as slide, open_slide(path) as file:
        np.testing.assert_array_equal(slide.read(PLACE), file.read(PLACE))
        assert sum(ranges) < path.stat().st_size / 2, "no readahead of 50 MiB for each tile"
        assert (slide.sha256, slide.mpp, slide.level_dimensions) == (file.sha256, file.mpp, file.level_dimensions)


def test_another_object_is_noticed_and_the_same_content_is_not(storage: ObjectStorage, path: Path) -> None:
    location = accepted()
    with open_slide(location) as slide:
        slide.require_unchanged()
        put(storage, path)  # again: another time, the same ETag
        slide.require_unchanged()
    open_slide(location).close()
    write_pyramid(path, pyramid_of(pixels()[::-1], 3))
    with open_slide(location) as slide:
        put(storage, path)
        with pytest.raises(SlideChanged):
            slide.read(PLACE)  # the storage itself refuses: If-Match
        with pytest.raises(SlideChanged):
            slide.require_unchanged()
    with pytest.raises(SlideChanged, match="not the file that was accepted"):
        open_slide(location)


def test_what_is_missing_damaged_or_no_slide_is_said(storage: ObjectStorage, path: Path) -> None:
    with pytest.raises(FileMissing, match=r"none\.tif: no such file"):
        open_slide(f"s3://{BUCKET}/lab/none.tif")
    with pytest.raises(FileMissing):
        open_slide("s3://no-such-bucket/slide.tif")
    storage.put("lab/text.tif", b"text" * 100)
    with pytest.raises(MitosisError) as refused:
        open_slide(f"s3://{BUCKET}/lab/text.tif")
    assert refused.value.code == "not-a-slide"
    put(storage, damage_tile(path, 0))
    with open_slide(URL) as slide, pytest.raises(MitosisError) as refused:
        slide.read(Box(0, 0, 100, 100))
    assert refused.value.code == "slide-damaged"
    with open_slide(URL) as slide:
        storage.delete("lab/slide.tif")
        with pytest.raises(FileMissing):
            slide.read(PLACE)


def test_a_reference_below_a_root_is_remembered_and_opened(path: Path, tmp_path: Path) -> None:
    engine = job_store(tmp_path / "data")
    with Sandbox() as sandbox:
        stores = Stores(engine, Storage(tmp_path / "data"), sandbox)
        stored = stores.referred(URL, f"s3://{BUCKET}/lab")
        assert (stored.path, stored.size) == (URL, path.stat().st_size)
        roots = Storage(stores.storage.folder, [f"s3://{BUCKET}/lab"])
        with open_stored(roots, stored) as slide:
            assert slide.sha256 == stored.sha256
        for elsewhere in (f"s3://{BUCKET}/other", f"s3://{BUCKET.upper()}/lab", "s3://others/lab"):
            with pytest.raises(SourceForbidden):
                open_stored(Storage(stores.storage.folder, [elsewhere]), stored)
            with pytest.raises(SourceForbidden):
                stores.referred(URL, elsewhere)
    engine.dispose()


def test_a_storage_that_does_not_answer_is_no_damage_of_the_slide(storage: ObjectStorage, path: Path) -> None:
    location = accepted()
    with open_slide(location) as slide:
        storage.stop()
        with pytest.raises(SourceUnavailable):
            slide.read(PLACE)
    with pytest.raises(SourceUnavailable):
        open_slide(replace(location, fingerprint=None))
