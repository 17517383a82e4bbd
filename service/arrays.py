"""Arrays in a file, compressed or not: written whole or not at all, read back or refused."""

import zlib
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from service.files import write_whole

# a flipped bit can give each of these: an array's header is parsed before its checksum is known
DAMAGE = (OSError, ValueError, KeyError, EOFError, NotImplementedError, TokenError, BadZipFile, zlib.error)


def save_arrays(path: Path, *, compressed: bool = False, durable: bool = True, **arrays: npt.ArrayLike) -> None:
    """Write arrays by name, as `write_whole` writes. Raises StorageFull, OutputUnwritable."""
    save = np.savez_compressed if compressed else np.savez
    write_whole(path, lambda file: save(file, allow_pickle=False, **arrays), durable=durable)


def load_arrays(path: Path, kind: str, *names: str) -> list[npt.NDArray[Any]]:
    """Read arrays by name. Raises ValueError where the file is missing, damaged, or not of that kind."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            return [saved[name] for name in names]
    except DAMAGE as error:
        raise ValueError(f"{path} is not a saved {kind}: {error}") from error
