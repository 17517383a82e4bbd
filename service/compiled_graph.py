"""Compiled graphs of OpenVINO, kept in a folder: to read one takes a quarter of the CPU time of making it again.

OpenVINO's own cache (CACHE_DIR) is not used: it wants the graph to be built first, does not notice damage, reads
whatever lies in its folder, and grows. Here a file is read if this user alone could have written it, and its checksum
is over what it was made of, too: weights, graph, arithmetic, OpenVINO and CPU. What hinders that costs time only.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import openvino

from service import __version__
from service.errors import OutputUnwritable, StorageFull
from service.files import file_sha256, write_whole
from service.model_card import ModelCard

KEPT = 6  # files, each 3 to 12 MB: a model has two kinds of arithmetic, for one tile and for many
PREFIX = "network-"
DIGEST = hashlib.sha256().digest_size
GRAPH_SOURCE = Path(__file__).with_name("openvino_graph.py")


def compile_graph(
    core: openvino.Core,
    build: Callable[[], openvino.Model],
    card: ModelCard,
    config: dict[str, str],
    depends_on: list[str],
    folder: Path | None,
) -> openvino.CompiledModel:
    """Compile the graph of a model for this CPU; if a folder is given, read what was compiled before, or keep it.

    It `depends_on` the precision that `build` makes of the card, and on what the CPU can do.
    """
    made_of = _made_of(core, card, [*config.items(), *depends_on])
    file = folder and folder / f"{PREFIX}{made_of.hex()[:24]}"
    with suppress(OSError, RuntimeError):  # of OpenVINO: it cannot make a graph of it
        if file:
            return core.import_model(_read(file, made_of), "CPU", config)
    compiled = core.compile_model(build(), "CPU", config)
    with suppress(OSError, RuntimeError, OutputUnwritable, StorageFull):
        if file:
            _keep(file, made_of, compiled.export_model().getvalue())
    return compiled


def _made_of(core: Any, card: ModelCard, asked: list[Any]) -> bytes:
    """Compute the checksum of all that a compiled graph depends on."""
    cpu = [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    ranges = card.int8.ranges if card.int8 else {}
    code = [openvino.get_version(), __version__, GRAPH_SOURCE.exists() and file_sha256(GRAPH_SOURCE)]
    facts = [card.sha256, card.architecture.model_dump(), ranges, code, cpu, asked]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()


def _read(file: Path, made_of: bytes) -> bytes:
    """Read a graph. Raises OSError where there is none, or one that is damaged or that others could have written."""
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as opened:
        status = os.fstat(opened.fileno())
        own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
        digest, graph = (opened.read(DIGEST), opened.read()) if own else (b"", b"")
    if digest != hashlib.sha256(made_of + graph).digest():
        raise OSError(None, "not a graph of ours")
    return graph


def _keep(file: Path, made_of: bytes, graph: bytes) -> None:
    """Write a graph, and delete the oldest of too many. Raises OSError, OutputUnwritable, StorageFull."""

    def write(opened: BinaryIO) -> None:
        os.fchmod(opened.fileno(), 0o600)
        opened.write(hashlib.sha256(made_of + graph).digest() + graph)

    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(file, write, durable=False)
    for old in sorted(file.parent.glob(f"{PREFIX}*"), key=lambda each: each.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)
