"""Streams of pixels of which part is lost: what decoders do not say is found by reading each to its end.

A copy that went wrong has zeros in place of some of a file. Where a tile begins every reader raises. Further on
decoders take them for pixels: libjpeg and zlib as long as there are bytes enough, OpenJPEG always. OpenSlide does not
ask what is left of a stream when its tile is full. So what it alone can place on the slide is read here, once, before
an analysis.
"""

import math
import mmap
import re
import struct
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import cache, partial
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg
import tifffile

from service.box import Box
from service.readers.confinement import THREADS
from service.readers.stream_size import SIZ, Size, stream_size

JPEG: Final = (7, 34892)  # TIFF's compressions
JPEG_2000: Final = (33003, 33004, 33005, 34712)
DEFLATE: Final = (8, 32946)
START, END = b"\xff\xd8", b"\xff\xd9"  # of JPEG; JPEG 2000 ends alike, and has no such bytes within
BEGINS: Final = re.compile(START + rb"\xff|" + re.escape(SIZ))
LONGEST_STREAM = 1 << 26  # bytes of one tile; a damaged count must not take the memory
MAX_TILE_PIXELS = 1 << 26  # 8192 x 8192; OpenSlide aborts the whole process if it cannot allocate a tile
LOST = "Corrupt JPEG data"  # begins what libjpeg says where it goes on with pixels that are not in the stream
PART_ENDS: Final = re.compile(rb"(\xff[\xd0-\xd7\xd9])")  # markers after all of a scan, or after a part of it
DAMAGED_TIFF = (  # what tifffile raises of one
    *(tifffile.TiffFileError, OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError),
)
HEADER_BYTES = 1 << 16  # within, a stream says its size
BATCH = 256  # streams that a thread checks at a time
AHEAD = 4 * THREADS  # batches that are listed at a time; a slide of a million tiles must not take the memory
INDEX_VERSION_BYTES = 5  # of MIRAX
ITEM = b"\xfe\xff\x00\xe0"  # goes before each frame of DICOM


class LostPixels(ValueError):
    """Part of a stream is lost; `tile` says where it lies (level px), if it is one of a grid."""

    def __init__(self, what: object, tile: Box | None = None) -> None:
        super().__init__(what)
        self.tile = tile


class Stream(NamedTuple):
    """Where a stream lies, and how it is checked."""

    file: Path
    offset: int
    length: int
    check: Callable[[bytes], None]


def require_sound(stream: bytes, tables: bytes | None = None) -> None:
    """Raise LostPixels where part of a JPEG or JPEG 2000 stream is lost; JPEG's `tables` may be apart from it.

    At an eighth of its size JPEG is read in full, and little is computed.
    """
    if not stream.startswith(START):
        if stream_size(stream) and SIZ in stream[:4096] and END not in stream:
            raise LostPixels("a JPEG 2000 stream without its end")
        return
    whole = (START + tables[2:-2] + stream[2:] if tables else stream) + END  # it may lack nothing but that
    try:
        decode(whole, "GRAY", fastdct=True, min_height=1, min_width=1, min_factor=8)
    except LostPixels:
        raise
    except ValueError:  # what else it does not like is for the decoder that is asked for the pixels
        pass


def decode(stream: bytes, colours: str, **options: Any) -> npt.NDArray[np.uint8]:
    """Decode a JPEG stream. Raises LostPixels where part of it is lost, ValueError for what else libjpeg does not like.

    Some encoders fill a scan up with zeros, of which libjpeg says what it says where it lost its way. But without them
    it finds no fault; and where zeros lie in place of pixels, it misses these then.
    """
    try:
        return np.asarray(simplejpeg.decode_jpeg(stream, colours, **options))
    except ValueError as error:
        if not str(error).startswith(LOST):
            raise
        with suppress(ValueError):
            return np.asarray(simplejpeg.decode_jpeg(_without_fill(stream), colours, **options))
        raise LostPixels(error) from error


def _without_fill(stream: bytes) -> bytes:
    """Leave out zeros at the end of a JPEG scan and of its parts, but for one after 0xff, which is data then."""
    parts = (part if at % 2 else part.rstrip(b"\xff").rstrip(b"\0") for at, part in enumerate(PART_ENDS.split(stream)))
    return b"".join(part + b"\0" if len(part) > 2 and part.endswith(b"\xff") else part for part in parts)


def require_inflatable(stream: bytes, size: int) -> None:
    """Raise LostPixels where a deflated stream does not end, with its checksum, after at most `size` bytes."""
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(stream, size)
        inflater.decompress(inflater.unconsumed_tail, 1)
    except zlib.error as error:
        raise LostPixels(error) from error
    if not inflater.eof:
        raise LostPixels("a deflated stream without its end")


def require_streams(files: Sequence[Path], properties: Mapping[str, Any], checked: Collection[Size]) -> None:
    """Read the streams of a slide that OpenSlide has opened, but for levels of a size that is checked elsewhere.

    Raises LostPixels, which says where. Hamamatsu's are not read: OpenSlide itself compares where their parts begin.
    """
    vendor = properties.get("openslide.vendor")
    if vendor == "hamamatsu":
        return
    if vendor == "mirax":
        streams = _of_mirax(files[0].with_suffix(""), properties)
    elif vendor == "dicom":
        streams = chain.from_iterable(map(_of_dicom, files))
    else:
        streams = _of_tiff(files[0], checked)
    apart = _apart(streams, 2 * sum(file.stat().st_size for file in files))
    batches = iter(lambda: list(islice(apart, BATCH)), [])
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            while ahead := list(islice(batches, AHEAD)):
                deque(pool.map(_check, ahead), 0)
    except (struct.error, LookupError, OSError) as error:
        raise LostPixels(f"its index leads nowhere ({type(error).__name__})") from error


def _apart(streams: Iterable[Stream], most_bytes: int) -> Iterator[Stream]:
    """Give each stream once, of tiles that share one. Raises LostPixels where they are more than a file can hold.

    An index of a few bytes could else have the same bytes read for days.
    """
    seen: set[tuple[Path, int]] = set()
    for stream in streams:
        if (stream.file, stream.offset) not in seen:
            seen.add((stream.file, stream.offset))
            most_bytes -= stream.length
            if most_bytes < 0:
                raise LostPixels("its tiles lie over one another")
            yield stream


def _check(streams: Iterable[Stream]) -> None:
    with ExitStack() as stack:
        opened = cache(lambda file: stack.enter_context(file.open("rb")))
        for stream in streams:
            opened(stream.file).seek(stream.offset)
            content = opened(stream.file).read(min(stream.length, LONGEST_STREAM))
            if math.prod(stream_size(content) or ()) > MAX_TILE_PIXELS:
                continue  # whoever is asked for it refuses it
            try:
                stream.check(content)
            except LostPixels as error:
                where = f"at byte {stream.offset} of {stream.file.name}"
                raise LostPixels(f"part of what begins {where} is lost: {error}") from error


def _of_tiff(path: Path, checked: Collection[Size]) -> Iterator[Stream]:
    """List the tiles of a TIFF that are in it, as far as its pages can be read."""
    with suppress(*DAMAGED_TIFF), tifffile.TiffFile(path) as tiff:
        for number in range(len(tiff.pages)):
            page: Any = tiff.pages[number]
            check = check_of(page)
            if check is None or not page.is_tiled or (page.imagewidth, page.imagelength) in checked:
                continue
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
                if count:
                    yield Stream(path, offset, count, check)


def check_of(page: Any) -> Callable[[bytes], None] | None:
    """Choose what finds lost parts of a TIFF page's tiles or strips, if anything does."""
    if page.compression in (*JPEG, *JPEG_2000):
        return partial(require_sound, tables=page.jpegtables)
    return partial(require_inflatable, size=math.prod(page.chunks)) if page.compression in DEFLATE else None


def _of_mirax(folder: Path, properties: Mapping[str, Any]) -> Iterator[Stream]:
    """List the images of a MIRAX slide by its index, in which OpenSlide found no fault."""
    index = (folder / properties["mirax.HIERARCHICAL.INDEXFILE"]).read_bytes()
    id_bytes = len(properties["mirax.GENERAL.SLIDE_ID"].encode())
    (root,) = struct.unpack_from("<i", index, INDEX_VERSION_BYTES + id_bytes)
    for (level,) in struct.iter_unpack("<i", index[root : root + 4 * int(properties["openslide.level-count"])]):
        _, page = struct.unpack_from("<ii", index, level)
        more = True
        while more:  # one page lies behind the other
            count, more = struct.unpack_from("<ii", index, page)
            if count < 0:  # it would lead back, for ever
                raise LookupError
            end = page + 8 + 16 * count
            for _, offset, length, number in struct.iter_unpack("<4i", index[page + 8 : end]):
                yield Stream(folder / properties[f"mirax.DATAFILE.FILE_{number}"], offset, length, require_sound)
            page = end


def _of_dicom(file: Path) -> Iterator[Stream]:
    """List the frames of a DICOM file: from where a stream begins, with a header that says its size, to the next."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        places = [match.start() for match in BEGINS.finditer(content)]
        starts = [place for place in places if stream_size(content[place : place + HEADER_BYTES])]
    for start, end in pairwise((*starts, file.stat().st_size)):
        yield Stream(file, start, end - start, _require_sound_frame)


def _require_sound_frame(stream: bytes) -> None:
    if stream.count(ITEM) < 2:  # before the next frame; one in several pieces has more
        require_sound(stream)
