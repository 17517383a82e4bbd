"""Which commit a program says that it is of."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import commit
from service.commit import source_commit

GIT = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in the program's place, with no history yet."""
    monkeypatch.setattr(commit, "CHECKOUT", tmp_path)
    monkeypatch.setattr(commit, "WRITTEN", tmp_path / "commit.txt")
    source_commit.cache_clear()
    yield tmp_path
    source_commit.cache_clear()


def git(folder: Path, *words: str) -> str:
    return subprocess.run([*GIT, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_a_checkout_is_asked_once(checkout: Path) -> None:
    git(checkout, "init")
    (checkout / "a.py").write_text("1")
    (checkout / "commit.txt").write_text("of an earlier build")
    git(checkout, "add", "a.py")
    git(checkout, "commit", "--message", "first")
    git(checkout, "tag", "v1")
    head = git(checkout, "rev-parse", "HEAD")
    assert source_commit() == head
    (checkout / "a.py").write_text("2")
    assert source_commit() == head
    source_commit.cache_clear()
    assert source_commit() == f"{head}-dirty"


def test_a_build_has_written_it_down(checkout: Path) -> None:
    (checkout / "commit.txt").write_text("0123abc\n")
    assert source_commit() == "0123abc"


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_where_nobody_knows_there_is_none(checkout: Path, content: str | None) -> None:
    if content is not None:
        (checkout / "commit.txt").write_text(content)
    assert source_commit() is None


def test_a_checkout_without_history_has_none(checkout: Path) -> None:
    git(checkout, "init")
    assert source_commit() is None
