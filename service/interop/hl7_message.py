"""An HL7 v2 message as it comes: read leniently, split only where something is looked at.

python-hl7 splits all of a message at once, which for 1 MB of separators takes 5 s and 440 MB; hl7apy knows only what
follows the standard. What other systems send has segments of their own, line feeds, and more fields than there are.
"""

import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Final

from service.export.hl7_text import CONTROLS, escaped

MAX_SEGMENTS: Final = 100_000
MAX_FIELDS: Final = 100  # the others are left in one piece
COMMON: Final = (  # names that are no HL7 table's; Python knows them all
    *(f"{prefix}{page}" for page in range(1250, 1259) for prefix in ("CP", "WINDOWS-")),
    *(f"ISO{dash}8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15) for dash in ("-", "_")),
    *("UTF8", "US-ASCII", "GB18030", "EUC-KR", "BIG5", "SHIFT_JIS"),
)
CHARSETS: Final = {  # table 0211: name to codec
    **{name: name for name in COMMON},
    "ASCII": "ascii",
    "ISO IR6": "ascii",
    **{f"8859/{part}": f"iso8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
    "UNICODE": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "UTF-8": "utf-8",
    "ISO IR14": "iso2022_jp",
    "ISO IR87": "iso2022_jp",
    "ISO IR159": "iso2022_jp_1",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "BIG-5": "big5",
}
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
BATCH: Final = re.compile(rb"(FHS|BHS)")
FORMATTING: Final = re.compile(r"\.(br|sp|fi|nf|in|ti|sk|ce)[+-]?\d*")  # of texts of type FT
SEGMENT_SEQUENCE: Final = "100^Segment sequence error"  # table 0357
REQUIRED_MISSING: Final = "101^Required field missing"
DATA_TYPE: Final = "102^Data type error"
TABLE_VALUE: Final = "103^Table value not found"
TYPE_UNSUPPORTED: Final = "200^Unsupported message type"
EVENT_UNSUPPORTED: Final = "201^Unsupported event code"
PROCESSING_UNSUPPORTED: Final = "202^Unsupported processing id"
VERSION_UNSUPPORTED: Final = "203^Unsupported version id"
INTERNAL: Final = "207^Application internal error"


class MessageRejected(Exception):
    """Why a message is not taken: AE where its content is at fault, AR where it is none for us; never its values."""

    def __init__(self, code: str, condition: str, place: str, words: str) -> None:
        super().__init__(words)
        self.code, self.condition, self.place = code, condition, place  # place as `PID-3`


@dataclass(frozen=True, slots=True)
class Delimiters:
    """What separates the parts of a message, and what escapes."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"

    @classmethod
    def of(cls, header: str) -> "Delimiters":
        """Those that an MSH segment declares; the usual ones where it declares fewer. Raises MessageRejected."""
        delimiters = header[3:4] + header[4:].partition(header[3:4] or "|")[0][:4]
        odd = any(mark.isalnum() or mark.isspace() or not mark.isprintable() for mark in delimiters)
        if len(delimiters) < 2 or len(set(delimiters)) < len(delimiters) or odd:
            raise MessageRejected("AR", DATA_TYPE, "MSH-2", "MSH-1 and MSH-2 do not tell what separates fields")
        return cls(*delimiters)

    @property
    def by_letter(self) -> dict[str, str]:
        """The delimiters by the letters that stand for them in an escape."""
        return dict(zip("FSRET", astuple(self), strict=True))


@dataclass(frozen=True)
class Segment:
    """One line of a message. Fields are counted as HL7 does, from 1; MSH-1 is the separator itself."""

    line: str
    delimiters: Delimiters

    @property
    def name(self) -> str:
        """All before the first separator: a text that a sender broke over lines may begin as a segment's name does."""
        return self.line.partition(self.delimiters.field)[0].rstrip()

    @property
    def place(self) -> str:
        """Its name, for an ERR; MSH for a text that was broken over lines."""
        return self.name if len(self.name) == 3 else "MSH"

    @cached_property
    def _fields(self) -> Sequence[str]:
        fields = self.line.split(self.delimiters.field, MAX_FIELDS)
        return [fields[0], self.delimiters.field, *fields[1:]] if self.name == "MSH" else fields

    def raw(self, number: int) -> str:
        """Give a field as it is written; empty where there is none, or where it is deleted ("")."""
        text = self._fields[number].strip() if number < len(self._fields) else ""
        return "" if text == '""' else text

    def repetitions(self, number: int) -> Sequence["Repetition"]:
        """List the repetitions of a field that hold more than separators."""
        found, nothing = self.raw(number), self.delimiters.component + self.delimiters.subcomponent
        parts = found.split(self.delimiters.repetition) if found else ()
        return [Repetition(each, self.delimiters) for each in parts if each.strip(nothing)]

    def only(self, number: int) -> "Repetition | None":
        """Give the value of a field that has but one. Raises MessageRejected where there are several."""
        found = self.repetitions(number)
        if len({each.written for each in found}) > 1:
            words = "several values stand there: which one is meant, is not clear"
            raise MessageRejected("AE", DATA_TYPE, f"{self.name}-{number}", words)
        return found[0] if found else None

    def standard(self, number: int) -> str:
        """Write a field between HL7's usual separators; as it came, where it came between them."""
        return "~".join(each.standard() for each in self.repetitions(number))

    def text(self, number: int, component: int = 1) -> str:
        """Give a component of a field's first repetition, as plain text."""
        found = self.repetitions(number)
        return found[0].text(component) if found else ""


@dataclass(frozen=True, slots=True)
class Repetition:
    """One of the values of a field."""

    written: str
    delimiters: Delimiters

    def text(self, component: int = 1, subcomponent: int | None = None) -> str:
        """Give a part of it as plain text: escapes undone, control characters blanks; nothing where it is deleted ("").

        Without a subcomponent it is all of the component: who writes "H&E" into a plain text, means that.
        """
        found = part_of(self.written, self.delimiters.component, component)
        if subcomponent is not None:
            found = part_of(found, self.delimiters.subcomponent, subcomponent)
        return "" if found.strip() == '""' else plain(found, self.delimiters)

    def standard(self) -> str:
        """Write it between HL7's usual separators; as it came, where it came between them."""
        if self.delimiters == Delimiters():
            return CONTROLS.sub(" ", self.written)
        marks = self.delimiters
        return "^".join(
            "&".join(escaped(plain(part, marks)) for part in component.split(marks.subcomponent))
            for component in self.written.split(marks.component)
        )


@dataclass(frozen=True)
class Message:
    """All segments of a message, MSH first."""

    segments: Sequence[Segment]
    charset: str = "ASCII"  # its own name for it, as MSH-18 has it
    codec: str = "ascii"

    @property
    def header(self) -> Segment:
        """MSH."""
        return self.segments[0]


def part_of(text: str, mark: str, number: int) -> str:
    """Give one of the parts that a mark separates, counted from 1; nothing where there are fewer."""
    parts = text.split(mark)
    return parts[number - 1] if number <= len(parts) else ""


def plain(text: str, delimiters: Delimiters) -> str:
    """Undo the escapes of a text and take out its control characters; an escape that means nothing here stays.

    What is for the eye only goes: highlighting (H, N), and commands of formatted text (.br), which are blanks.
    """
    if delimiters.escape in text:
        means = delimiters.by_letter | {"H": "", "N": ""}
        escape = re.escape(delimiters.escape)

        def meaning(match: re.Match[str]) -> str:
            return " " if FORMATTING.fullmatch(match[1]) else means.get(match[1], match[0])

        text = re.sub(f"{escape}(.*?){escape}", meaning, text)
    return CONTROLS.sub(" ", text).strip()


def _decoded(line: str, delimiters: Delimiters, codec: str) -> str:
    """Write the characters of a segment that are bytes in hexadecimal (X and digits) as themselves, delimiters escaped.

    Bytes of one character may stand in several escapes. Raises UnicodeDecodeError.
    """
    if f"{delimiters.escape}X" not in line:
        return line
    escape = re.escape(delimiters.escape)
    others = re.escape(delimiters.field + delimiters.component + delimiters.repetition + delimiters.subcomponent)
    names = {sign: letter for letter, sign in delimiters.by_letter.items()}

    def characters(match: re.Match[str]) -> str:
        if match[1] is None:  # another escape: its end begins none
            return match[0]
        text = bytes.fromhex(re.sub(f"X|{escape}", "", match[1])).decode(codec)
        written = (f"{delimiters.escape}{names[each]}{delimiters.escape}" if each in names else each for each in text)
        return "".join(written)

    return re.sub(f"((?:{escape}X(?:[0-9A-Fa-f]{{2}})+{escape})+)|{escape}[^{others}]*?{escape}", characters, line)


def require_one_charset(message: Message) -> None:
    """Raise MessageRejected where a message goes on in other characters than those of its MSH-18.

    By ISO 2022 it would say so by <ESC>, or by an escape C or M: what follows is read as the wrong characters, and may
    hold what looks like separators.
    """
    escape = re.escape(message.header.delimiters.escape)
    switch = re.compile(f"\x1b|{escape}[CM](?:[0-9A-Fa-f]{{2}}){{2,3}}{escape}")
    for segment in message.segments:
        if switch.search(segment.line):
            words = "its characters change on the way (<ESC>, or an escape C or M); send all of it in those of MSH-18"
            raise MessageRejected("AE", DATA_TYPE, segment.place, words)


def messages_in(content: bytes) -> list[bytes]:
    """Split what came in one frame into its messages, without a byte order mark and a batch's own segments."""
    content = content.removeprefix(BYTE_ORDER_MARK)
    parts = [each for each in re.split(rb"(?<=[\r\n])(?=MSH)", content) if not BATCH.match(each.lstrip())]
    return [re.split(rb"[\r\n](?=BTS|FTS)", each, maxsplit=1)[0] for each in parts] or [content]


def read_header(content: bytes) -> Segment:
    """MSH alone, of a message that may be unreadable otherwise. Raises MessageRejected."""
    line = re.split(rb"[\r\n]", content.lstrip()[:4096], maxsplit=1)[0].decode("latin-1")
    if not line.startswith("MSH"):
        raise MessageRejected("AR", SEGMENT_SEQUENCE, "MSH", "the message does not begin with MSH")
    return Segment(line, Delimiters.of(line))


def read_message(content: bytes, default_charset: str = "", *, override: str = "") -> Message:
    """Decode a message in the characters that its MSH-18 names, or in those of `override`. Raises MessageRejected.

    Without MSH-18 it is the default, else UTF-8: whatever else a text were, it would hardly be valid UTF-8.
    """
    named = override or read_header(content).text(18)
    charset = named or default_charset or "UNICODE UTF-8"
    codec = CHARSETS.get(charset.upper())
    if codec is None:
        raise MessageRejected("AR", TABLE_VALUE, "MSH-18", "this character set is not read here")
    try:
        text = content.decode(codec)
    except UnicodeDecodeError as error:
        words = f"byte {error.start} is no {charset}" + ("" if named else "; say in MSH-18 what it is")
        raise MessageRejected("AE", DATA_TYPE, "MSH-18", words) from error
    lines = [line for line in re.split(r"[\r\n]+", text.strip(), maxsplit=MAX_SEGMENTS) if line.strip()]
    if len(lines) > MAX_SEGMENTS:
        raise MessageRejected("AR", SEGMENT_SEQUENCE, "MSH", f"more than {MAX_SEGMENTS} segments")
    delimiters = Delimiters.of(lines[0])
    segments = [Segment(line.lstrip(), delimiters) for line in lines]
    for number, segment in enumerate(segments):
        try:
            segments[number] = Segment(_decoded(segment.line, delimiters, codec), delimiters)
        except UnicodeDecodeError as error:
            words = f"bytes in hexadecimal are no {charset}" + ("" if named else "; say in MSH-18 what they are")
            raise MessageRejected("AE", DATA_TYPE, segment.place, words) from error
    return Message(segments, charset if named else "", codec)
