"""A laboratory's system, as far as tests need one: its messages, and what others' libraries say of the answers."""

from typing import Any

import hl7
import hl7apy.parser
from hl7apy.consts import VALIDATION_LEVEL

PID = "PID|1||0815^^^KIS^PI~4711^^^KK^NI||Müßig&von^Jürgen||19610228|M"
NUMBERS = iter(range(10**6))


def message(*segments: str, kind: str = "OML^O21^OML_O21", charset: str = "UNICODE UTF-8", **header: str) -> str:
    """A message as text; `header` overrides fields of MSH by number, as `f10="7"`."""
    fields = {"f3": "LIS", "f4": "LAB", "f5": "MITOSIS", "f6": "PATH", "f7": "20261124100000+0100", "f9": kind}
    fields |= {"f10": f"M{next(NUMBERS)}", "f11": "P", "f12": "2.5.1", "f18": charset} | header
    values = [fields.get(f"f{number}", "") for number in range(3, 22)]
    return "\r".join(("|".join(("MSH", "^~\\&", *values)).rstrip("|"), *segments)) + "\r"


def order(
    number: str = "ORD-1", control: str = "NW", *, obr: str = "", slides: tuple[str, ...] = ("S26-1-A-1",)
) -> list[str]:
    """ORC, OBR, SPM and a SAC for each slide."""
    return [
        f"ORC|{control}|{number}|F-{number}",
        obr or f"OBR|1|{number}|F-{number}|MAI^Mitosenzählung^L||||||||||||^Weiß^Käthe||B26-17",
        "SPM|1|P-1^S26-1-A||TISS^Tissue^HL70487",
        *(f"SAC||B26-17|{slide}|S26-1-A-BLOCK" for slide in slides),
    ]


def checked(answer: bytes, codec: str = "utf-8") -> hl7.Message:
    """An answer that hl7apy finds valid by its strict rules, as python-hl7 reads it."""
    text = answer.decode(codec)
    parsed: Any = hl7apy.parser.parse_message(text, validation_level=VALIDATION_LEVEL.STRICT)
    assert parsed.validate()
    return hl7.parse(text)


def code_of(answer: bytes) -> str:
    """MSA-1, of an answer in any character set."""
    return str(hl7.parse(answer.decode("latin-1")).segment("MSA")[1])
