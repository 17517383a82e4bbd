"""Files behind URLs: read in blocks, and a storage that does not answer told apart from a file that is damaged.

Whoever decodes a slide takes any error for damage, and says so of the file. So what a driver raises is turned into
errors of ours here, below the decoders: they are to let those through.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, cast

from service.errors import BadInput, FileMissing, MitosisError, SlideChanged
from service.refusals import SourceUnavailable

BLOCK_BYTES: Final = 1 << 20  # of a slide's tiles some ten; drivers' own readahead is up to 50 MiB for each of them
LARGE_BYTES: Final = 8 << 20  # of a file that is read from its beginning to its end
KEPT_BYTES: Final = 64 << 20  # of each open file
CHANGED: Final = "FileExpired"  # of s3fs: the object has another ETag than when it was opened


class RemoteFile(io.BufferedIOBase):
    """A file behind a URL, open for reading. Raises FileMissing, SlideChanged, SourceUnavailable."""

    def __init__(self, url: str, name: str, block_bytes: int) -> None:
        import fsspec

        self._name = name
        with driver_errors(name):
            system, path = fsspec.core.url_to_fs(url)
            kept = {"maxblocks": KEPT_BYTES // block_bytes}
            options = {"block_size": block_bytes, "cache_type": "blockcache", "cache_options": kept}
            self._file = system.open(path, "rb", **options)

    def readable(self) -> bool:
        """Say that it can be read from."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read from anywhere."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes, or all that are left."""
        with driver_errors(self._name):
            return bytes(self._file.read(-1 if size is None else size))

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go somewhere."""
        with driver_errors(self._name):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """Say where it is."""
        return int(self._file.tell())

    def close(self) -> None:
        """Close it."""
        if not self.closed:
            self._file.close()
        super().close()


def open_remote(url: str, name: str, block_bytes: int = BLOCK_BYTES) -> BinaryIO:
    """Open a file behind a URL; `name` is for people. Raises as RemoteFile."""
    return cast(BinaryIO, RemoteFile(url, name, block_bytes))  # all of it that a reader needs


def identity(url: str, name: str) -> tuple[Any, ...]:
    """Ask what tells that a file is another one: its size, and ETag and version where the storage has them."""
    import fsspec

    with driver_errors(name):
        system, path = fsspec.core.url_to_fs(url)
        found = system.info(path, **({"refresh": True} if "s3" in system.protocol else {}))
        if "ETag" in found:
            return path, found["size"], found["ETag"], found.get("VersionId")
        return path, found["size"], str(system.ukey(path))


@contextmanager
def driver_errors(name: str) -> Iterator[None]:
    """Turn what a driver raises into FileMissing, SlideChanged or SourceUnavailable."""
    try:
        yield
    except MitosisError:
        raise
    except ValueError as error:
        if "closed file" in str(error):  # by us: nothing of the storage's
            raise
        raise FileMissing(f"{name}: {error}") from error
    except FileNotFoundError as error:
        if isinstance(error.__cause__, BadInput):  # fsspec takes any error for this one
            raise error.__cause__ from None
        raise FileMissing(f"{name}: no such file") from error
    except Exception as error:  # drivers have hierarchies of their own
        if type(error).__name__ == CHANGED:
            raise SlideChanged(f"{name} was replaced, or written to, while it was read; submit it anew") from error
        what = "refuses to give it" if isinstance(error, PermissionError) else "does not give it"
        raise SourceUnavailable(f"{name}: the storage {what} ({type(error).__name__}); try again") from error
