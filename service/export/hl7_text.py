"""Text as HL7 v2 writes it: escapes of its delimiters, components, and codes of sexes."""

import re
from typing import TypeAlias

from service.order import split_name

Fields: TypeAlias = dict[int, str | list[str]]  # by number, already escaped; a list repeats the field

SEX = {"female": "F", "male": "M", "other": "O", "unknown": "U"}
ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}


def escaped(text: str) -> str:
    """Escape a text as part of a field."""
    plain = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)
    return "".join(ESCAPES.get(character, character) for character in plain)


def parts(*components: str) -> str:
    """Write the components of a field."""
    return "^".join(map(escaped, components)).rstrip("^")


def person(identifier: str | None, name: str | None) -> str:
    """Write XCN: an identifier, family and given name."""
    return parts(identifier or "", *split_name(name or ""))
