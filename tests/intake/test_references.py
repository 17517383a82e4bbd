"""Slides that stay where they are, and what files name: below a root, in a slide's own folder, and the same as ever."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from service.errors import ReferenceForbidden, SlideChanged, SourceForbidden
from service.slide import Box
from service.store.slides import open_stored
from service.store.storage import Storage
from tests.intake.stores import Stores
from tests.slides import draw_tissue, write_svs, write_vms
from tests.zips import write_zip


def svs(tmp_path: Path, seed: int = 0) -> bytes:
    return write_svs(tmp_path / f"{seed}.svs", draw_tissue(300, 200, seed)).read_bytes()


def test_a_reference_is_remembered_and_opened_where_it_lies(stores: Stores, tmp_path: Path) -> None:
    content = svs(tmp_path)
    (tmp_path / "link.svs").symlink_to(tmp_path / "0.svs")
    stored = stores.referred(str(tmp_path / "link.svs"), str(tmp_path))
    assert (stored.path, stored.size) == (str(tmp_path / "0.svs"), len(content))
    assert stored.sha256 == stored.facts["sha256"] == hashlib.sha256(content).hexdigest()
    assert stores.referred(str(tmp_path / "0.svs"), str(tmp_path)).id == stored.id
    with open_stored(Storage(stores.storage.folder, [str(tmp_path)]), stored) as slide:
        assert (slide.name, slide.sha256) == ("0.svs", stored.sha256)
    assert stores.slide_files() == []


def test_a_reference_is_not_opened_below_other_roots_nor_where_another_file_is(stores: Stores, tmp_path: Path) -> None:
    svs(tmp_path)
    stored = stores.referred(str(tmp_path / "0.svs"), str(tmp_path))
    with pytest.raises(SourceForbidden):
        open_stored(Storage(stores.storage.folder, [str(tmp_path / "cases")]), stored)
    write_svs(tmp_path / "0.svs", draw_tissue(300, 200)[::-1])
    storage = Storage(stores.storage.folder, [str(tmp_path)])
    with pytest.raises(SlideChanged, match=r"0\.svs is not the file that was accepted"):
        open_stored(storage, stored)
    with pytest.raises(SlideChanged):
        asyncio.run(stores.sandbox.cut(stored.location(storage), stored.name, Box(0, 0, 50, 50), 1))


def test_an_upload_of_what_was_referred_to_is_stored_and_stays_so(stores: Stores, tmp_path: Path) -> None:
    content = svs(tmp_path)
    first = stores.referred(str(tmp_path / "0.svs"), str(tmp_path))
    second = stores.uploaded(content, "0.svs")
    third = stores.referred(str(tmp_path / "0.svs"), str(tmp_path))
    assert first.id == second.id == third.id
    assert second.path == third.path == f"slides/{second.sha256}/slide.svs"


def test_an_upload_that_names_files_of_others_is_refused_whatever_it_is_called(stores: Stores, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    content = write_vms(tmp_path / "a.vms", tmp_path / "others").read_bytes()
    for name in ("a.vms", "a.VMU", "a.svs", "a"):
        with pytest.raises(ReferenceForbidden, match=r"names a file outside its folder"):
            stores.uploaded(content, name)
    write_zip(tmp_path / "a.zip", {"case/a.svs": content})
    with pytest.raises(ReferenceForbidden, match=r"a\.svs names a file outside its folder"):
        stores.uploaded((tmp_path / "a.zip").read_bytes(), "a.zip")
    assert stores.slide_files() == []
