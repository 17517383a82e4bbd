"""MIRAX: a slide's own file is a thumbnail; its pixels lie in the folder of its name beside it, with an index."""

from pathlib import Path

MIRAX, MIRAX_INDEX = ".mrxs", "Slidedat.ini"


def is_mirax(path: Path) -> bool:
    """Say whether a file is a MIRAX slide's own, by its name."""
    return path.suffix.lower() == MIRAX


def files_beside(path: Path) -> list[Path]:
    """List the files in a MIRAX slide's folder, in the order of their paths; none for other slides. Raises OSError."""
    return sorted(file for file in path.with_suffix("").rglob("*") if file.is_file()) if is_mirax(path) else []
