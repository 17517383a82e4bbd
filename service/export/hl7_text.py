"""Text as HL7 v2 writes it: escapes of its delimiters, and codes of sexes."""

import re

SEX = {"female": "F", "male": "M", "other": "O", "unknown": "U"}
ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}


def escaped(text: str) -> str:
    """Escape a text as part of a field."""
    plain = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)
    return "".join(ESCAPES.get(character, character) for character in plain)
