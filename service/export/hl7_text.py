"""Text as HL7 v2 writes it: escapes of its delimiters, components, codes of sexes, and times."""

import re
from datetime import UTC, datetime, tzinfo
from typing import TypeAlias

from service.order import split_name

Fields: TypeAlias = dict[int, str | list[str]]  # by number, already escaped; a list repeats the field

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
SEX = {"female": "F", "male": "M", "other": "O", "unknown": "U"}
ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}


def escaped(text: str) -> str:
    """Escape a text as part of a field."""
    return "".join(ESCAPES.get(character, character) for character in CONTROLS.sub(" ", text))


def parts(*components: str) -> str:
    """Write the components of a field."""
    return "^".join(map(escaped, components)).rstrip("^")


def person(identifier: str | None, name: str | None) -> str:
    """Write XCN: an identifier, family and given name."""
    return parts(identifier or "", *split_name(name or ""))


def moment(text: str, default_zone: tzinfo = UTC) -> float:
    """Read a time stamp (YYYYMMDD[HH[MM[SS[.S]]]][+ZZZZ]) as Unix seconds; 0 if it is none."""
    match = re.fullmatch(r"(\d{8})(\d{2})?(\d{2})?(\d{2})?(\.\d{1,4})?([+-]\d{4})?", text.strip())
    if match is None:
        return 0.0
    day, hour, minute, second, fraction, zone = match.groups("")
    try:
        digits = f"{day}{hour or '00'}{minute or '00'}{second or '00'}"
        local = datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=default_zone)
        said = datetime.strptime(digits + zone, "%Y%m%d%H%M%S%z") if zone else local
        return said.timestamp() + float(fraction or 0)
    except (ValueError, OverflowError):
        return 0.0
