"""Whatever orders say, a result repeats its own order's identifiers as they came, and nothing of any other order."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import hl7
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select
from structlog.testing import capture_logs

from service.export.fhir import to_fhir
from service.export.hl7 import Envelope, to_hl7
from service.interop.fhir_orders import read_requests
from service.interop.fhir_served import to_service_request
from service.interop.hl7_answers import answer
from service.order import ReceivedOrder
from service.store import holds
from service.store.analyses import Analyses
from service.store.database import analyses, orders, reading, writing
from service.store.orders import Sent, take
from service.store.records import Submission
from tests.databases import job_store
from tests.export.hospital import FINAL, report_of
from tests.lis import code_of, message

FEW = ("total",)  # each count takes hl7apy some hundredths of a second
QUIET = hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TENANTS = iter(range(10**6))

word = st.text(st.sampled_from("ABCxyz019 -./ÄßŁ山"), min_size=1, max_size=10).map(str.strip).filter(bool)
maybe = st.one_of(st.just(""), word)
oid = st.sampled_from(["", "&1.2.840.1&ISO", "&2.16.9&ISO"])
assigner = st.builds("{}{}".format, word, oid)
patient_number = st.builds(
    lambda value, who, kind, days: f"{value}^^^{who}^{kind}{days}".rstrip("^"),
    *(
        word,
        assigner,
        st.sampled_from(["MR", "PI", "NI", ""]),
        st.sampled_from(["", "^^20000101", "^^20000101^20991231"]),
    ),
)
name = st.builds("{}^{}^^^^^{}".format, word, word, st.sampled_from("LMD"))
entity = st.builds(lambda value, who: f"{value}^{who.replace('&', '^')}", word, assigner)
provider = st.builds(lambda number, family: f"{number}^{family}^A^^^^^^KIS&1.2&ISO", word, word)
specimen = st.builds("{}^{}".format, maybe, word)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = job_store(tmp_path_factory.mktemp("echo"))
    with capture_logs():
        yield engine
    engine.dispose()


def only_order(engine: Engine, tenant: str) -> ReceivedOrder:
    with reading(engine) as connection:
        return ReceivedOrder.model_validate(
            connection.execute(select(orders.c.order).where(orders.c.tenant == tenant)).scalar_one()
        )


@QUIET
@given(
    numbers=st.lists(patient_number, min_size=1, max_size=3),
    names=st.lists(name, min_size=1, max_size=2),
    placer=entity,
    filler=entity,
    orderer=provider,
    label=specimen,
)
def test_a_result_by_hl7_repeats_what_came(
    engine: Engine, numbers: list[str], names: list[str], placer: str, filler: str, orderer: str, label: str
) -> None:
    tenant = f"t{next(TENANTS)}"
    said = {"PID-3": "~".join(numbers), "PID-5": "~".join(names), "ORC-2": placer, "ORC-3": filler}
    said |= {"OBR-2": placer, "OBR-3": filler, "OBR-16": orderer, "SPM-2": label}
    asked = [f"PID|1||{said['PID-3']}||{said['PID-5']}", f"ORC|NW|{placer}|{filler}"]
    asked += [
        f"OBR|1|{placer}|{filler}|MAI^M^L||||||||||||{orderer}",
        f"SPM|1|{label}||TISS^Tissue^HL70487",
        "SAC|||S-1",
    ]
    assert code_of(answer(engine, message(*asked).encode(), tenant)) == "AA"
    told = hl7.parse(to_hl7(report_of(3), only_order(engine, tenant), FINAL, Envelope("1"), chosen=FEW).decode())
    for place, written in said.items():
        segment, number = place.split("-")
        assert str(told.segment(segment)[int(number)]) == written


fhir_text = st.text(st.sampled_from("ABCxyz019-./ÄßŁ山"), min_size=1, max_size=10)
fhir_identifier = st.fixed_dictionaries(
    {"system": st.sampled_from(["urn:oid:1.2.3", "http://kis.example/id"]), "value": fhir_text},
    optional={
        "use": st.sampled_from(["official", "usual", "old"]),
        "assigner": st.fixed_dictionaries({"display": fhir_text}),
        "period": st.just({"start": "2001-02-03", "end": "2099-01-01"}),
    },
)


@QUIET
@given(
    patient=st.lists(fhir_identifier, min_size=1, max_size=3),
    number=fhir_identifier,
    slide=fhir_identifier,
    names=st.lists(
        st.fixed_dictionaries({"family": fhir_text, "use": st.sampled_from(["official", "maiden"])}), max_size=2
    ),
)
def test_fhir_repeats_what_came(engine: Engine, patient: Any, number: Any, slide: Any, names: Any) -> None:
    tenant = f"t{next(TENANTS)}"
    who = {"resourceType": "Patient", "id": "p", "identifier": patient} | ({"name": names} if names else {})
    container = {"resourceType": "Specimen", "id": "s", "container": [{"identifier": [slide]}]}
    request = {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "identifier": [number]}
    request |= {"contained": [who, container], "subject": {"reference": "#p"}, "specimen": [{"reference": "#s"}]}
    [asked] = read_requests(json.dumps(request).encode(), "key 1")
    with writing(engine) as connection:
        assert take(connection, Sent(tenant, "fhir", "key 1"), asked) == "placed"
        rows = connection.execute(select(orders).where(orders.c.tenant == tenant)).all()
    back = to_service_request(rows)
    assert back["identifier"] == [number]
    assert back["contained"][0]["identifier"] == patient
    assert back["contained"][0].get("name", []) == names
    assert back["contained"][1]["container"] == [{"identifier": [slide]}]
    told = json.loads(to_fhir(report_of(3), only_order(engine, tenant), FINAL))
    resources = {each["resource"]["resourceType"]: each["resource"] for each in told["entry"]}
    assert resources["DiagnosticReport"]["subject"]["identifier"] in patient
    assert resources["DiagnosticReport"]["basedOn"][0]["identifier"] == number
    assert resources["Specimen"]["container"] == [{"identifier": [slide]}]


@cache
def report() -> Any:
    return report_of(3)


FIELDS = ("patient", "name", "number", "filler", "provider", "accession", "specimen", "block")


def order_of(who: str, shared: frozenset[str], slide: str) -> list[str]:
    """Segments of an order whose facts are its own, but for those that it shares."""
    facts = {each: f"{each}-{'shared' if each in shared else who}" for each in FIELDS}
    placer, filler = f"{facts['number']}^KIS", f"{facts['filler']}^LAB"
    accession = facts["accession"]
    return [
        f"PID|1||{facts['patient']}^^^KIS^MR||{facts['name']}^A^^^^^L",
        f"ORC|NW|{placer}|{filler}",
        f"OBR|1|{placer}|{filler}|MAI^M^L||||||||||||^{facts['provider']}||{accession}",
        f"SPM|1|^{facts['specimen']}||TISS^Tissue^HL70487",
        f"SAC|||{slide}|{facts['block']}",
    ]


@QUIET
@given(
    shared=st.frozensets(st.sampled_from(FIELDS)),
    steps=st.permutations(["one", "two", "slide"]),
    uploaded=st.sampled_from([None, "patient-one", "patient-two"]),
)
def test_a_result_carries_nothing_of_an_order_that_it_was_not_matched_to(
    engine: Engine, shared: frozenset[str], steps: list[str], uploaded: str | None
) -> None:
    tenant = f"t{next(TENANTS)}"
    given_order = {"patient_id": uploaded, "patient_id_issuer": "KIS", "patient_name": "up"} if uploaded else None
    for step in steps:
        if step == "slide":
            request = {"order": given_order}
            asked = Submission(tenant, "s", "a.svs", request, "m", "0" * 64, slide_identifier="S-1", label={})
            analysis_id = Analyses(engine).submit(asked)[0].id
        else:
            assert code_of(answer(engine, message(*order_of(step, shared, "S-1")).encode(), tenant)) == "AA"
    with reading(engine) as connection:
        row = connection.execute(select(analyses).where(analyses.c.id == analysis_id)).one()
    carried = holds.carried_order(row.request)
    written = (
        to_fhir(report(), carried, FINAL, chosen=FEW),
        to_hl7(report(), carried, FINAL, Envelope("1"), chosen=FEW),
    )
    text = b"".join(written).decode()
    assert not ("-one" in text and "-two" in text), "the result repeats one message, and no other"
    agreed = uploaded is None or uploaded == carried.patient_id
    if ("patient" not in shared and "number" not in shared) or not agreed:
        assert row.held is not None, "two patients: nothing of it is sent"
