"""A `uri`: what it means, and whether it lies below one of the roots that the service may read, at every open."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from service.errors import FileMissing, SourceForbidden
from service.location import Location
from service.readers.opening import is_url, slide_name

FORBIDDEN = "the uri is not below a folder or URL that this service may read"


def resolve_reference(uri: str, roots: Sequence[str]) -> Location:
    """Find what a `uri` means, if it lies below one of the roots (folders and URL prefixes).

    Raises SourceForbidden, and FileMissing where there is nothing below the root.
    """
    if any(unicodedata.category(character)[0] == "C" for character in uri):
        raise SourceForbidden(FORBIDDEN)
    if is_url(uri):
        return judge(uri, roots)
    return judge(_local(uri, [Path(root) for root in roots if not is_url(root)]), roots)


def judge(path: str, roots: Sequence[str]) -> Location:
    """Judge a path or URL that was accepted, by today's roots: those may be fewer now. Raises SourceForbidden."""
    if is_url(path):
        if any(_below(path, root) for root in roots if is_url(root)):
            return Location(path)
        raise SourceForbidden(FORBIDDEN)
    above = [folder for root in roots if not is_url(root) and (folder := Path(root).resolve()) in Path(path).parents]
    if not above:
        raise SourceForbidden(FORBIDDEN)
    return Location(path, root=str(above[0]))


def _local(path: str, roots: Sequence[Path]) -> str:
    """Judge a path twice: as written, so that nothing is said about files elsewhere; and where its links lead."""
    given = Path(path)
    if not given.is_absolute() or ".." in given.parts:
        raise SourceForbidden(FORBIDDEN)
    try:
        inside = [root.resolve() for root in roots if {root, root.resolve()} & set(given.parents)]
        if not inside:
            raise SourceForbidden(FORBIDDEN)
        found = given.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise FileMissing(f"{slide_name(path)}: there is no such file") from error
    if not any(root in found.parents for root in inside):
        raise SourceForbidden(FORBIDDEN)
    if not (found.is_file() or found.is_dir()):
        raise FileMissing(f"{slide_name(path)} is neither a file nor a folder")
    return str(found)


def _below(url: str, root: str) -> bool:
    """Tell whether a URL lies below another, by whole parts of its path, and no server can read it otherwise."""
    try:
        given, above = urlsplit(url), urlsplit(root)
    except ValueError:
        return False
    parts, start = given.path.split("/"), above.path.rstrip("/").split("/")
    return (
        given.scheme not in ("file", "local")
        and "::" not in url
        and "@" not in given.netloc
        and not (given.query or given.fragment or url.endswith(("?", "#")))
        and (given.scheme, _host(given)) == (above.scheme, _host(above))
        and parts[: len(start)] == start
        and len(parts) > len(start)
        and all(_is_plain(part) for part in parts[1:])
    )


def _host(url: SplitResult) -> str:
    return url.netloc.lower() if url.scheme in ("http", "https") else url.netloc  # a bucket's name is what it is


def _is_plain(part: str) -> bool:
    while (decoded := unquote(part)) != part:
        part = decoded
    return part not in ("", ".", "..") and not re.search(r"[/\\?#\x00-\x1f]", part)
