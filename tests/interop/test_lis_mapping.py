"""Senders that write it elsewhere: the shapes of public samples, with names and numbers of our own."""

import signal
from pathlib import Path
from typing import Any

import hl7
import pytest
from sqlalchemy import Engine, select

from service.errors import SettingsInvalid
from service.export.hl7 import Envelope, to_hl7
from service.export.hl7_text import moment
from service.interop.hl7_answers import answer
from service.interop.hl7_message import read_header
from service.interop.lis_mapping import NO_MAPPING, LisMapping, Sender, read_mapping
from service.order import ReceivedOrder
from service.store.analyses import Analyses
from service.store.database import orders, reading
from service.store.records import Submission
from tests.export.hospital import FINAL, report_of
from tests.interop.test_mllp import Listening
from tests.lis import code_of, message, order

MAPPING = """
[[sender]]  # an AP module: the cassette in SAC-3, no accession
application = "APMODULE"
block = ["SAC-3"]
slide = ["SAC-3"]
accession = []

[[sender]]  # an older one, without specimens: the slide's label has the order's number
application = "OLDAP"
slide = ["ORC-2"]

[[sender]]  # a genome laboratory: no slide, the case is the filler's number
application = "GENOME"
slide = []
accession = ["OBR-3", "ORC-3"]

[[sender]]  # an ambulatory portal: no orderer, the case in ORC-4
application = "PORTAL"
accession = ["ORC-4"]
slide = []
provider_optional = true
identifier_types = ["PI", "PT"]
charset = "8859/1"

[[sender]]  # middleware that names its character set in MSH-17
application = "MIDDLE"
charset = "8859/1"
accession = ["OBR-3"]
assigner = "KIS"
zone = "Europe/Berlin"

[[sender]]  # a stainer's middleware: no sender, fields off by one, the slide in parts of OBR-2
application = ""
facility = ""
patient = "PID-2"
slide = ["OBR-2;4"]
accession = ["OBR-2;1"]
block = ["OBR-2;3"]
stain = ["OBR-4.2"]
provider_optional = true
production = ["2.5"]
any_version = true

[[sender]]  # an administration in CP1250's time: the number in PID-2
application = "ADMIN"
patient = "PID-2"
slide = ["OBR-15"]
charset = "8859/2"
name_types = ["D", "L"]
"""

PID = "PID|1|77^^^KIS^MR|88^^^KIS^PI~99^^^KIS^PT||Müßig^Jürgen^^^^^L~Muessig^J^^^^^D||19610228|M"
SHAPES: dict[str, tuple[dict[str, str], list[str], dict[str, Any]]] = {
    "AP module": (
        {"f3": "APMODULE"},
        [PID, "ORC|NW|O-1", "OBR|1|O-1||H^HE^L||||||||||||^Weiß", "SPM|1|S-1&NS||TISS", "SAC|||C-1"],
        {"container_id": "C-1", "block": "C-1", "accession_number": None, "patient_id": "88"},
    ),
    "older AP module": (
        {"f3": "OLDAP", "kind": "ORM^O01", "f12": "2.4"},
        [PID, "ORC|NW|O-2", "OBR|1|O-2||H^HE^L||||||||||||^Weiß"],
        {"container_id": "O-2"},
    ),
    "genome laboratory": (
        {"f3": "GENOME"},
        [PID, "ORC|NW|O-3|F-3||SC", "OBR|1|O-3|F-3|G^Genome^L||||||||||||^Weiß", "SPM|1|S-3&NS||TISS"],
        {"accession_number": "F-3", "container_id": None},
    ),
    "portal": (
        {"f3": "PORTAL", "charset": ""},
        [PID, "ORC|NW|O-4||G-4", "OBR|1|O-4X||G^Genome^L"],
        {"accession_number": "G-4", "ordering_provider": None, "patient_id": "88", "patient_name": "Müßig, Jürgen"},
    ),
    "middleware": (
        {"f3": "MIDDLE", "charset": "", "f17": "8859/1"},
        [PID.replace("^^^KIS", ""), "ORC|NW|O-5", "OBR|1|O-5|B-5|G^Gen^L||||||||||||^Weiß", "BLG|CH"],
        {"accession_number": "B-5", "patient_id_issuer": "KIS"},
    ),
    "stainer": (
        {"f3": "", "f4": "", "f11": "2.5", "f12": "0"},
        [PID, "ORC|NW|S-6;A;2;7", "OBR||S-6;A;2;S-6-A-2-7|S-6|1^H&E|||||||||||||||S-6|A"],
        {"container_id": "S-6-A-2-7", "accession_number": "S-6", "block": "2", "patient_id": "77", "stain": "H&E"},
    ),
    "administration": (
        {"f3": "ADMIN", "kind": "ORM^O01", "f12": "2.3", "charset": ""},
        [PID, "ORC|NW|O-7", "OBR|1|O-7||H^HE^L|||||||||||S-7&x^^|^Weiß"],
        {"patient_id": "77", "patient_name": "Muessig, J"},
    ),
}


@pytest.fixture
def mapping(tmp_path: Path) -> LisMapping:
    (tmp_path / "lis.toml").write_text(f"\ufeff{MAPPING}", "utf-8")  # as some editors begin a file
    return read_mapping(tmp_path / "lis.toml")


def kept(engine: Engine) -> tuple[Any, ReceivedOrder]:
    with reading(engine) as connection:
        row = connection.execute(select(orders)).one()
    return row, ReceivedOrder.model_validate(row.order)


@pytest.mark.parametrize("shape", SHAPES)
def test_orders_of_each_shape_are_taken_with_a_mapping(engine: Engine, mapping: LisMapping, shape: str) -> None:
    header, segments, expected = SHAPES[shape]
    codec = "latin-1" if header.get("charset") == "" else "utf-8"
    content = message(*segments, **header).encode(codec)
    assert code_of(answer(engine, content, "default", mapping=mapping)) == "AA"
    row, order = kept(engine)
    assert {name: getattr(order, name) for name in expected} == expected
    assert row.processing_id == "P"
    told = hl7.parse(to_hl7(report_of(3), order, FINAL, Envelope("1"), chosen=("total",)).decode())
    where = 2 if shape in ("stainer", "administration") else 3
    assert str(told.segment("PID")[3]) == segments[0].split("|")[where]


@pytest.mark.parametrize("shape", [each for each in SHAPES if each not in ("AP module", "administration")])
def test_without_a_mapping_they_are_refused(engine: Engine, shape: str) -> None:
    header, segments, _ = SHAPES[shape]
    codec = "latin-1" if header.get("charset") == "" else "utf-8"
    said = answer(engine, message(*segments, **header).encode(codec), "default", mapping=NO_MAPPING)
    assert code_of(said) in ("AE", "AR")


def test_training_stays_training_whatever_the_mapping(engine: Engine, mapping: LisMapping) -> None:
    header, segments, _ = SHAPES["older AP module"]
    answer(engine, message(*segments, **header | {"f11": "T"}).encode(), "default", mapping=mapping)
    assert kept(engine)[0].processing_id == "T"


def test_training_is_analysed_where_the_laboratory_says_so_and_never_as_production(engine: Engine) -> None:
    mapping = LisMapping(sender=(Sender(application="SCHOOL", training_results=True),))

    def send(patient: str, number: str, **header: str) -> None:
        said = answer(engine, message(patient, *order(number), **header).encode(), "default", mapping=mapping)
        assert code_of(said) == "AA"

    def slide() -> str:
        asked = Submission("default", "s", "a.svs", {"order": None}, "m", "0" * 64, slide_identifier="S26-1-A-1")
        return Analyses(engine).submit(asked)[0].id

    def carried(analysis_id: str) -> tuple[str | None, ...]:
        row = Analyses(engine).get(analysis_id, "default")
        found = row.request["order"] or {}
        return found.get("patient_id"), found.get("processing_id"), row.held and row.held["reasons"][0]["code"]

    for mark in ("T", "D"):
        send(PID, "O-T", f3="OTHER", f11=mark)  # of another sender: only listed
    first = slide()
    assert carried(first) == (None, None, None)
    send(PID, "O-T", f3="SCHOOL", f11="D")
    second = slide()
    assert carried(first) == carried(second) == ("88", "D", None)
    send(PID.replace("88", "500"), "O-P")  # production comes first, whoever the patient of the training is
    assert carried(first) == carried(second) == ("500", None, None)
    send(PID, "O-T2", f3="SCHOOL", f11="T")
    assert carried(first) == carried(second) == carried(slide()) == ("500", None, None)


def test_a_character_set_that_is_known_to_be_wrong_is_not_believed(engine: Engine) -> None:
    wrong = {"f3": "LIAR", "charset": "UNICODE UTF-8"}
    content = message("PID|1||88^^^KIS^PI||Müßig^Jürgen", *order(), **wrong).encode("latin-1")
    assert code_of(answer(engine, content, "default", mapping=NO_MAPPING)) == "AE"
    mapping = LisMapping(sender=(Sender(application="LIAR", charset="8859/1", charset_overrides=True),))
    said = answer(engine, content, "default", mapping=mapping).decode("latin-1")
    assert str(hl7.parse(said).segment("MSH")[18]) == "8859/1"
    assert kept(engine)[1].patient_name == "Müßig, Jürgen"


def test_times_without_a_zone_are_the_senders(engine: Engine, mapping: LisMapping) -> None:
    header, segments, _ = SHAPES["middleware"]
    content = message(*segments, **header | {"f7": "20260701120000"}).encode("latin-1")
    answer(engine, content, "default", mapping=mapping)
    assert kept(engine)[0].sent_at == moment("20260701120000+0200") == moment("20260701100000")


def test_the_first_sender_that_fits_counts(mapping: LisMapping) -> None:
    assert mapping.of(read_header(b"MSH|^~\\&|OLDAP^1.2^ISO|X")).slide == ("ORC-2",)
    assert mapping.of(read_header(b"MSH|^~\\&|LIS|X")).slide == ("SAC-3",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[sender]]\nslide = ["SAC"]', "sender.0.slide.0"),
        ('[[sender]]\nslide = ["MSH-3"]', "sender.0.slide.0"),
        ('[[sender]]\npatient = "SAC-3"', "sender.0.patient"),
        ('[[sender]]\ncharset = "KOI-99"', "character set"),
        ('[[sender]]\nzone = "Berlin"', "time zone"),
        ('[[sender]]\nproduction = ["P", "T"]', "sender.0.production.1"),
        ("[[sender]]\ncharset_overrides = true", "charset_overrides needs a charset"),
        ('[[sender]]\nslides = ["SAC-3"]', "sender.0.slides"),
        ("[[sender]", "lis.toml"),
    ],
)
def test_a_mapping_that_is_wrong_is_found_at_the_start_and_says_where(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "lis.toml").write_text(text)
    with pytest.raises(SettingsInvalid, match=r"lis\.toml") as refused:
        read_mapping(tmp_path / "lis.toml")
    assert said in str(refused.value)
    with pytest.raises(SettingsInvalid, match="No such file"):
        read_mapping(tmp_path / "none.toml")


def test_the_listener_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lis.toml").write_text(MAPPING)
    monkeypatch.setenv("MITOSIS_LIS_MAPPING", str(tmp_path / "lis.toml"))
    listening = Listening(tmp_path).start()
    header, segments, _ = SHAPES["stainer"]
    assert code_of(listening.ask(message(*segments, **header).encode())) == "AA"
    assert listening.kill(signal.SIGTERM) == 0
