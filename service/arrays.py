"""Arrays in a file, compressed or not: written whole or not at all, read back or refused."""

import os
import uuid
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def save_arrays(path: Path, *, compressed: bool = False, **arrays: npt.ArrayLike) -> None:
    """Write arrays by name, so that they are there after a power cut. Raises OSError."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4()}.partial")
    try:
        with partial.open("wb") as file:
            (np.savez_compressed if compressed else np.savez)(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_arrays(path: Path, kind: str, *names: str) -> list[npt.NDArray[Any]]:
    """Read arrays by name. Raises ValueError where the file is missing, damaged, or not of that kind."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            return [saved[name] for name in names]
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a saved {kind}: {error}") from error
