"""Text in HL7 v2: whatever it holds, it ends no field and no segment, and comes back as it was."""

import re

import hl7
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.export.hl7_text import ESCAPES, escaped

BACK = {escape: character for character, escape in ESCAPES.items()}


@given(st.text())
def test_nothing_that_is_escaped_delimits(text: str) -> None:
    found = escaped(text)
    plain = re.sub(r"\\[EFSTR]\\", "", found)
    assert not set(plain) & {*ESCAPES, "\r", "\n", "\0", "\x85", "\u2028"}
    back = re.sub(r"\\[EFSTR]\\", lambda match: BACK[match[0]], found)
    assert back == re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)


@pytest.mark.parametrize("text", ["Prüf & Söhne|Labor^Ost~\\Nord", "|||", "\\F\\", "a^b&c"])
def test_others_read_it_as_it_was(text: str) -> None:
    message = hl7.parse(f"MSH|^~\\&|A|B|C|D|20260102||ACK|1|P|2.5.1\rNTE|1||{escaped(text)}\r")
    assert message.unescape(str(message.segment("NTE")[3])) == text
