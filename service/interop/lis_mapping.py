"""Where each sender's HL7 v2 messages say what: a TOML file, MITOSIS_LIS_MAPPING, read when a process starts.

    [[sender]]
    application = "STAINER"      # MSH-3, first component; left out: any. The first sender that fits is taken
    slide = ["OBR-2;4"]          # the fourth of parts with ";" between them
    accession = ["OBR-2;1"]
    patient = "PID-2"
    provider_optional = true

A place is SEGMENT-FIELD, with .COMPONENT, and ;PART of that. The first place that holds something counts.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.errors import SettingsInvalid
from service.interop.hl7_message import CHARSETS, Repetition, Segment, part_of
from service.order import Identifier
from service.strict import first_error

PLACE: Final = re.compile(r"(PID|ORC|OBR|SPM|SAC)-([1-9]\d?)(?:\.([1-9]\d?))?(?:;([1-9]))?")


def _place(text: str) -> str:
    if not PLACE.fullmatch(text):
        raise ValueError("a place is a field of PID, ORC, OBR, SPM or SAC, as SAC-3, SPM-2.2 or OBR-2;4")
    return text


def _charset(text: str) -> str:
    if text and text.upper() not in CHARSETS:
        raise ValueError("this character set is not read here")
    return text


def _production(text: str) -> str:
    if text.upper() in ("T", "D"):
        raise ValueError("T and D are never production; training_results = true has them analysed, and marked")
    return text


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError("this is no time zone, as Europe/Berlin is") from error
    return text


Places = tuple[Annotated[str, AfterValidator(_place)], ...]


class Sender(BaseModel):
    """The meaning of one sender's messages; the defaults are those of who follows IHE."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    application: str | None = None
    """MSH-3, its first component; left out: any."""
    facility: str | None = None
    """MSH-4, its first component; left out: any."""
    patient: Annotated[str, Field(pattern="^PID-[234]$")] = "PID-3"
    """The patient's identifiers."""
    slide: Places = ("SAC-3",)
    """The slide's label."""
    accession: Places = ("SAC-2", "OBR-18")
    """The case."""
    block: Places = ("SAC-4",)
    """The block."""
    stain: Places = ()
    """The stain, where no OBX says it."""
    provider: Places = ("OBR-16", "ORC-12")
    """The orderer."""
    provider_optional: bool = False
    """Whether an order without one is taken, and its results sent without OBR-16."""
    assigner: Annotated[str, Field(max_length=255)] = ""
    """Who assigned the patient's and the order's numbers that name nobody; empty: the sender."""
    charset: Annotated[str, AfterValidator(_charset)] = ""
    """Characters of messages without MSH-18; empty: MITOSIS_LIS_CHARSET."""
    charset_overrides: bool = False
    """Whether `charset` holds whatever MSH-18 says, which is known to be wrong."""
    zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """Time zone of times without one."""
    production: tuple[Annotated[str, AfterValidator(_production)], ...] = ("P", "")
    """What MSH-11 says of orders for production; never T or D."""
    training_results: bool = False
    """Whether orders for training and debugging (T, D) match slides; their results are marked so, never P."""
    identifier_types: tuple[str, ...] = ("MR", "PI")
    """Types of patients' identifiers (table 0203), the preferred one first."""
    name_types: tuple[str, ...] = ("L", "D", "", "U")
    """Types of names (table 0200), the preferred one first."""

    any_version: bool = False
    """Whether MSH-12 is not looked at."""

    @model_validator(mode="after")
    def _check_charset(self) -> Self:
        if self.charset_overrides and not self.charset:
            raise ValueError("charset_overrides needs a charset")
        return self

    def assigned(self, identifier: Identifier) -> Identifier:
        """Complete an identifier that names no assigner."""
        if identifier.assigner or not self.assigner:
            return identifier
        return identifier.model_copy(update={"namespace": self.assigner})

    def fits(self, header: Segment) -> bool:
        """Tell whether a message is this sender's, by its MSH."""
        names = ((self.application, 3), (self.facility, 4))
        return all(name is None or name == header.text(number) for name, number in names)


class LisMapping(BaseModel):
    """All senders of a laboratory; a message of none of them is read by IHE's rules."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sender: tuple[Sender, ...] = ()

    def of(self, header: Segment) -> Sender:
        """Find the sender of a message by its MSH."""
        return next((each for each in self.sender if each.fits(header)), STANDARD)


STANDARD: Final = Sender()
NO_MAPPING: Final = LisMapping()


def read_mapping(path: Path | None) -> LisMapping:
    """Read a mapping file; without one, everybody follows IHE. Raises SettingsInvalid, which says what is wrong."""
    if path is None:
        return NO_MAPPING
    try:
        return LisMapping.model_validate(tomllib.loads(path.read_text("utf-8-sig")))
    except ValidationError as error:
        raise SettingsInvalid(f"{path}: {': '.join(first_error(error))}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsInvalid(f"MITOSIS_LIS_MAPPING: {path}: {error}") from error


def find(places: Sequence[str], segments: Mapping[str, Segment | None]) -> Repetition | None:
    """Find the first field of some places that is not empty, and its first value."""
    return next((found[0] for place in places if (found := _values(place, segments))), None)


def text_at(places: Sequence[str], segments: Mapping[str, Segment | None], *, identifies: bool = True) -> str:
    """Read the first of some places that holds something, as plain text.

    Raises MessageRejected for several values of what `identifies` something.
    """
    for place in places:
        found = _values(place, segments, one=identifies)
        if found and (text := _part(place, found[0])):
            return text
    return ""


def _values(place: str, segments: Mapping[str, Segment | None], *, one: bool = False) -> Sequence[Repetition]:
    name, number = re.split("[-.;]", place)[:2]
    segment = segments.get(name)
    if segment is None:
        return ()
    if one:
        segment.only(int(number))
    return segment.repetitions(int(number))


def _part(place: str, repetition: Repetition) -> str:
    match = PLACE.fullmatch(place)
    component, part = (match[3], match[4]) if match is not None else (None, None)
    text = repetition.text(int(component or 1))
    return part_of(text, ";", int(part)).strip() if part else text
