"""What benchmarks print for people."""

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version


def machine() -> str:
    """Name what was measured on."""
    python = platform.python_version()
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {python}, torch {version('torch')}"


def table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print a Markdown table of rows that have the first one's columns."""
    print(f"\n### {title}\n\n| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(map(str, row.values()))} |", flush=True)
