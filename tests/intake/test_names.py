"""Names that a client gives: fit to be shown."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.intake.names import clean_name


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("case 7.svs", "case 7.svs"),
        ("../../etc/passwd", "passwd"),
        ("C:\\slides\\case 7.svs", "case 7.svs"),
        ("a/b/", "b"),
        ("case\0 7\n.svs\x7f", "case 7.svs"),
        ("\u202egvs.exe", "gvs.exe"),
        ("a\u200b\ufeff\u2066b\u2069.svs", "ab.svs"),
        ("one\u2028two\xa0three.svs", "onetwo three.svs"),
        ("cafe\N{COMBINING ACUTE ACCENT}.svs", "caf\N{LATIN SMALL LETTER E WITH ACUTE}.svs"),
        ("\ud800.svs", "svs"),
        (".htaccess", "htaccess"),
        (" . . a.svs. ", "a.svs"),
        ("CON.svs", "_CON.svs"),
        ("lpt1", "_lpt1"),
        ("console.svs", "console.svs"),
        ("", "slide"),
        ("...", "slide"),
        ("/", "slide"),
        ("\u202e\0", "slide"),
        ("x" * 300 + ".svs", "x" * 251 + ".svs"),
        ("ö" * 300 + ".svs", "ö" * 125 + ".svs"),
        ("x." + "y" * 300, "x." + "y" * 253),
        ("слайд.svs", "слайд.svs"),
    ],
)
def test_names_are_fit_to_be_shown(given: str, shown: str) -> None:
    assert clean_name(given) == shown


@given(st.text(st.characters(), max_size=400))
def test_every_name_becomes_one(name: str) -> None:
    shown = clean_name(name)
    assert 0 < len(shown.encode()) <= 255
    assert clean_name(shown) == shown
    assert not {"/", "\\", "\0"} & set(shown)
    assert not any(unicodedata.category(character)[0] == "C" for character in shown)
    assert shown[0] not in ". "
