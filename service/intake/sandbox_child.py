"""The child of the sandbox: it opens what strangers sent, and answers one question a line."""

import base64
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from service.errors import MitosisError, SlideChanged, SlideDamaged, SlideTooLarge
from service.hosts import guard_urls, listed_hosts
from service.intake import archive
from service.location import Location
from service.readers.confinement import ConfinedThreads
from service.readers.opening import is_url
from service.slide import Box, open_slide

if TYPE_CHECKING:  # children that only open slides do without what draws
    from service.intake.deep_zoom import ShownSlides

MEMORY_BYTES = 4 << 30  # address space; imports take 0.2 GiB, the largest plain image 3.2 GiB


def main() -> None:
    """Answer questions until nobody asks any more."""
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print is no answer
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal; the gateway says when to end
    guard_urls(listed_hosts(sys.argv[1:]))
    for line in sys.stdin.buffer:
        question = json.loads(line)
        # ends even a loop in C, and even if nobody is there any more to kill this process
        signal.setitimer(signal.ITIMER_REAL, question["seconds"])
        replies.write(json.dumps(_reply(question)).encode() + b"\n")
        signal.setitimer(signal.ITIMER_REAL, 0)


def _reply(question: dict[str, Any]) -> dict[str, Any]:
    try:
        return ANSWERS[question["do"]](question)
    except MitosisError as error:
        return {"code": error.code, "detail": _named(str(error), question)}
    except MemoryError:
        return {"code": SlideTooLarge.code, "detail": f"{question['name']}: its reader runs out of memory"}
    except Exception as error:  # noqa: BLE001  whatever a reader raises on a damaged file
        what = f"{question['name']} cannot be read ({type(error).__name__})"
        return {"code": SlideDamaged.code, "detail": f"{what}; copy the file again"}


def _named(detail: str, question: dict[str, Any]) -> str:
    """Put the name that the client knows in place of the path that the service keeps the file at."""
    path = question["location"]["path"] if "location" in question else question["path"]
    for ours in (path, Path(path).name):
        if detail.startswith(ours):
            return f"{question['name']}{detail[len(ours) :]}"
    return detail


def _inspect(question: dict[str, Any]) -> dict[str, Any]:
    with open_slide(Location(**question["location"]), name=question["name"]) as slide:
        fingerprint = slide.fingerprint
        facts = _finite(slide.describe())
        if slide.vendor == "dicom":
            from service.slide_label import read_label

            facts["label"] = slide.ask(read_label).model_dump(mode="json", exclude_defaults=True)
        if slide.fingerprint != fingerprint:
            raise SlideChanged(f"{question['name']} was replaced, or written to, while it was read; submit it anew")
        return {"facts": facts, "size": sum(map(_size, slide.files)), "fingerprint": fingerprint}


def _unpack(question: dict[str, Any]) -> dict[str, Any]:
    folder = Path(question["folder"])
    archive.unpack(Path(question["path"]), folder, question["limit"])
    threads = ConfinedThreads([folder])
    slide = threads.run(archive.slide_in, folder)
    threads.close()
    return {"slide": str(slide.relative_to(folder))}


def _draw(question: dict[str, Any]) -> dict[str, Any]:
    from service.intake.pictures import Picture, draw

    location = Location(**question["location"])
    draw(Picture(**question["picture"] | {"location": location}), Path(question["out"]))
    return {}


def _cut(question: dict[str, Any]) -> dict[str, Any]:
    location, box = Location(**question["location"]), Box(*question["box"])
    jpeg = _shown().cut(location, box, question["scale"], name=question["name"])
    return {"jpeg": base64.b64encode(jpeg).decode()}


@cache
def _shown() -> "ShownSlides":
    from service.intake.deep_zoom import ShownSlides

    return ShownSlides()


ANSWERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "inspect": _inspect,
    "unpack": _unpack,
    "draw": _draw,
    "cut": _cut,
}


def _size(file: str | Path) -> int:
    if not is_url(file):
        return Path(file).stat().st_size
    system, path = fsspec.core.url_to_fs(str(file))
    return int(system.size(path) or 0)


def _finite(value: Any) -> Any:
    """Replace numbers that JSON does not have by null; OME-XML may hold them."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main()
