"""Which source this program was made of: what git says of a checkout, or what a build wrote into `commit.txt`."""

import subprocess
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
WRITTEN = Path(__file__).with_name("commit.txt")
DESCRIBE = ("git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*")


@cache
def source_commit() -> str | None:
    """Find the commit, with `-dirty` where files differ from it; None if unknown. Git is asked once in a process."""
    if (CHECKOUT / ".git").exists():  # a folder, or a worktree's file
        try:
            run = subprocess.run(DESCRIBE, cwd=CHECKOUT, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
        except (OSError, subprocess.SubprocessError):
            return None
        return run.stdout.strip() or None
    try:
        return WRITTEN.read_text().strip() or None
    except OSError:
        return None
