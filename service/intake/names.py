"""Names that clients give: fit to be shown."""

import re
import unicodedata

MAX_NAME_BYTES = 255
NAMELESS = "slide"
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # on Windows, where names end up


def clean_name(name: str) -> str:
    """Make a file name fit to be shown: its last part, without what is invisible or reverses the text."""
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name).rstrip("/\\"))[-1]
    visible = "".join(_visible(character) for character in last).strip(" .")
    if RESERVED.match(visible):
        visible = f"_{visible}"
    stem, dot, suffix = visible.rpartition(".")
    if not stem or len(suffix.encode()) > 20:
        stem, dot, suffix = visible, "", ""
    room = MAX_NAME_BYTES - len((dot + suffix).encode())
    return stem.encode()[:room].decode(errors="ignore") + dot + suffix or NAMELESS


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] == "Z":
        return " " if category == "Zs" else ""
    return "" if category[0] == "C" else character
