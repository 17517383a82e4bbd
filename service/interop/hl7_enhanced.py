"""HL7's enhanced mode: a message says by MSH-15 and MSH-16 which acknowledgements it wants.

    MSH-15   that it was accepted: ACK with MSA-1 CA, CE or CR, before anything else
    MSH-16   the application's answer

AL is always, NE never, ER of errors only, SU of success only; where one of them is given, the other one is NE. Without
either, or with something else, there is the application's answer alone (original mode). What was not accepted gets no
application's answer.
"""

import uuid

from service.export.hl7_text import escaped
from service.interop.hl7_message import Message, MessageRejected, read_header, read_message

WANTED = {"AL": (True, True), "NE": (False, False), "ER": (False, True), "SU": (True, False)}  # of success, of error


def acknowledgements(content: bytes, answer: bytes) -> list[bytes]:
    """Choose what a message is told, given the application's answer to it; nothing, where it wants nothing."""
    try:
        header = read_header(content)
    except MessageRejected:
        return [answer]
    read = read_message(answer, override="8859/1")  # byte by byte: its texts are repeated, and not looked at
    accept, application = header.text(15).upper(), header.text(16).upper()
    if not (accept or application) or {accept, application} - {"", *WANTED}:
        return [answer]
    code = read.segments[1].text(1)
    wants_answer = WANTED[application or "NE"][code != "AA"]
    commit = {"AA": "CA", "AR": "CR"}.get(code, "CA" if wants_answer else "CE")
    if not WANTED[accept or "NE"][commit != "CA"]:
        return [answer] if wants_answer else []
    accepted = _commit(read, commit, escaped(header.text(9, 2)))
    return [accepted, answer] if wants_answer and commit == "CA" else [accepted]


def _commit(answer: Message, code: str, trigger: str) -> bytes:
    """Make the acknowledgement of what an answer was given to; where it was not accepted, with the answer's reasons."""
    header, said, *rest = (segment.line.split("|") for segment in answer.segments)
    header[8], header[9], said[1] = f"ACK^{trigger}^ACK", uuid.uuid4().hex[:20], code
    errors = [segment for segment in rest if segment[0] == "ERR"] if code != "CA" else []
    lines = ["|".join(segment) for segment in (header, said, *errors)]
    return ("\r".join(lines) + "\r").encode(answer.codec, "replace")
