"""FHIR: read back by fhir.resources' R4B models, then what those do not look at: references, codes, value sets."""

import json
import sys
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle

from service.export import codes
from service.export.fhir import check_fhir, to_fhir
from service.order import Order, ResultStatus, Standing
from service.refusals import FormatUnavailable
from service.report import Rectangle, Report
from tests.export.hospital import FINAL, NASTY, ORDER, confirmation, report_of, with_detections

UNITS = {"1", "/mm2", "mm2", "um", "{pixel}"}
LOINC_NOTTINGHAM, SNOMED_TEN_FIELDS = ("http://loinc.org", "85300-2"), ("http://snomed.info/sct", "406094009")


def bundle_of(report: Report, order: Order = ORDER, status: ResultStatus = "preliminary", **options: Any) -> Any:
    """Parsed by the models, and given as they write it."""
    said = {name: options.pop(name) for name in ("confirmed", "moves", "withdrawn") if name in options}
    content = to_fhir(report, order, Standing(status, **said), **options)
    return json.loads(Bundle.model_validate_json(content).model_dump_json())


def resources(bundle: Any, kind: str) -> list[Any]:
    return [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]


def observations(bundle: Any) -> dict[str, Any]:
    """By the local code; of several with the same code, the first."""
    found: dict[str, Any] = {}
    for each in resources(bundle, "Observation"):
        found.setdefault(each["code"]["coding"][-1]["code"], each)
    return found


def components(observation: Any) -> dict[str, Any]:
    """Plain values by the local code."""
    values = {}
    for each in observation["component"]:
        quantity = each.get("valueQuantity", {})
        values[each["code"]["coding"][-1]["code"]] = quantity.get("value", each.get("valueBoolean"))
    return values


def everything(node: Any, key: str) -> list[Any]:
    """All values of a key, at any depth."""
    if isinstance(node, list):
        return [value for each in node for value in everything(each, key)]
    if not isinstance(node, dict):
        return []
    return [value for name, each in node.items() for value in ([each] if name == key else []) + everything(each, key)]


def test_the_counts_are_the_reports() -> None:
    report = report_of()
    found = observations(bundle_of(report))
    assert found["mitoses-total"]["valueQuantity"] == {
        "value": 12,
        "unit": "no units",
        "system": "http://unitsofmeasure.org",
        "code": "1",
    }
    assert found["mitoses-per-mm2"]["valueQuantity"]["value"] == report.counts.per_mm2
    assert found["mitoses-per-mm2"]["valueQuantity"]["code"] == "/mm2"
    assert components(found["mitoses-total"]) == {"examined-area": 12.0, "threshold": 0.5}
    assert len(resources(bundle_of(report), "Observation")) == 3 + len(report.scores)


def test_the_mai_tells_its_area_interval_and_hot_spot() -> None:
    report = report_of()
    mai, observation = report.mai, observations(bundle_of(report))["mai_baak"]
    assert observation["valueQuantity"]["value"] == mai.count
    assert components(observation) == {
        "window-area": pytest.approx(mai.area_mm2),
        "window-tissue": pytest.approx(mai.tissue_mm2),
        "count-lower": pytest.approx(mai.interval[0]),
        "count-upper": pytest.approx(mai.interval[1]),
        "area-sufficient": True,
        "near-cutoff": mai.near_cutoff,
        "high-risk": mai.high_risk,
        "hotspot-x": pytest.approx(mai.hotspot.x),
        "hotspot-y": pytest.approx(mai.hotspot.y),
        "hotspot-radius": pytest.approx(mai.hotspot.radius_um),
        "hotspot-tissue": mai.hotspot.tissue_fraction,
        "hotspot-sections": 1,
    }
    assert observation["method"]["text"] == f"mai_baak, {mai.table_version}"
    (note,) = observation["note"]
    place = f"pixel x {mai.hotspot.x:.0f}, y {mai.hotspot.y:.0f}"
    assert note["text"] == f"Hot-spot: circle of radius {mai.hotspot.radius_um:.0f} um centred on level-0 {place}"


def test_a_score_is_an_integer_with_its_count_and_one_without_classes_is_a_count() -> None:
    report = report_of()
    scores = {each.definition: each for each in report.scores}
    found = observations(bundle_of(report))
    assert found["nottingham_fd"]["valueInteger"] == scores["nottingham_fd"].score
    assert components(found["nottingham_fd"])["mitoses-window"] == scores["nottingham_fd"].count
    assert found["midog"]["valueQuantity"]["value"] == scores["midog"].count
    assert "hotspot-width" in components(found["midog"])


def test_public_codes_stand_where_they_mean_exactly_this() -> None:
    coded = {
        (coding["system"], coding["code"]): observation["code"]["coding"][-1]["code"]
        for observation in resources(bundle_of(report_of()), "Observation")
        for coding in observation["code"]["coding"]
        if coding["system"] != codes.LOCAL.uri
    }
    assert coded == {LOINC_NOTTINGHAM: "nottingham_fd", SNOMED_TEN_FIELDS: "mai_baak"}


def test_every_quantity_has_a_ucum_unit() -> None:
    quantities = everything(bundle_of(report_of()), "valueQuantity")
    assert len(quantities) > 100
    assert {(each["system"], each["code"]) for each in quantities} == {(codes.UCUM.uri, unit) for unit in UNITS}


def test_local_codes_are_unique_and_short_enough_for_dicom() -> None:
    concepts = [each for each in vars(codes).values() if isinstance(each, tuple)] + list(codes.DEFINITIONS.values())
    local = [code for concept in concepts for code in concept if code.system == codes.LOCAL]
    assert len({code.value for code in local}) == len(local) > 30
    assert all(len(code.value) <= 16 and len(code.meaning) <= 64 for concept in concepts for code in concept)


def test_a_definition_that_is_not_in_the_table_keeps_its_id() -> None:
    (code,) = codes.definition("new_rule")
    assert (code.system, code.value) == (codes.LOCAL, "new_rule")


@pytest.mark.parametrize("status", ["preliminary", "final", "amended"])
def test_the_status_is_on_the_report_and_on_each_observation(status: ResultStatus) -> None:
    bundle = bundle_of(report_of(), status=status, confirmed=None if status == "preliminary" else confirmation())
    (report,) = resources(bundle, "DiagnosticReport")
    assert report["status"] == status
    assert {each["status"] for each in resources(bundle, "Observation")} == {status}
    assert ("no person has confirmed it" in report["conclusion"]) == (status == "preliminary")


def test_a_confirmed_result_names_who_and_when() -> None:
    bundle = bundle_of(report_of(), status="final", confirmed=confirmation())
    (report,), (provenance,) = resources(bundle, "DiagnosticReport"), resources(bundle, "Provenance")
    assert report["issued"] == "2026-01-02T09:00:00+01:00"
    assert report["resultsInterpreter"] == [{"type": "Practitioner", "display": "Weiß, Käthe"}]
    verifier = provenance["agent"][1]
    assert verifier["type"]["coding"][0]["code"] == "verifier"
    assert (verifier["who"]["display"], verifier["onBehalfOf"]["display"]) == (
        "Weiß, Käthe",
        "Institut für Pathologie",
    )


def test_a_changed_status_updates_the_same_resources_and_adds_a_provenance() -> None:
    first, second = bundle_of(report_of()), bundle_of(report_of(), status="final", confirmed=confirmation())
    differing = [
        (one["resource"]["resourceType"], one["request"]["url"] != other["request"]["url"])
        for one, other in zip(first["entry"], second["entry"], strict=True)
    ]
    assert {kind for kind, changed in differing if changed} == {"Provenance"}
    assert to_fhir(report_of(), ORDER, FINAL) == to_fhir(report_of(), ORDER, FINAL)


def test_every_reference_leads_to_an_entry_or_is_an_identifier() -> None:
    bundle = bundle_of(report_of())
    urls = {entry["fullUrl"] for entry in bundle["entry"]}
    references = everything(bundle, "reference")
    assert set(references) <= urls
    (report,) = resources(bundle, "DiagnosticReport")
    assert {each["reference"] for each in report["result"]} == {
        f"urn:uuid:{each['id']}" for each in resources(bundle, "Observation")
    }


def test_the_hospitals_own_resources_are_named_and_not_written() -> None:
    bundle = bundle_of(report_of())
    assert {entry["resource"]["resourceType"] for entry in bundle["entry"]} == {
        "DiagnosticReport",
        "Observation",
        "Device",
        "Specimen",
        "Provenance",
    }
    (report,), (specimen,) = resources(bundle, "DiagnosticReport"), resources(bundle, "Specimen")
    assert report["subject"]["identifier"]["value"] == "1234567"
    assert report["subject"]["display"] == "Ångström-Łukasiewicz, Zoë"
    assert report["basedOn"][0]["type"] == "ServiceRequest"
    assert report["basedOn"][0]["identifier"]["value"] == "ORD-99"
    assert specimen["container"][0]["identifier"][0]["value"] == "B26-00017-A-1-1"
    assert specimen["parent"][0]["identifier"]["value"] == "A1"
    assert specimen["processing"][0]["procedure"]["text"] == "H&E"


def test_software_and_model_are_the_device() -> None:
    (device,) = resources(bundle_of(report_of()), "Device")
    assert [each["value"] for each in device["version"]] == ["1.2.3", "1" * 64]
    assert device["modelNumber"] == "model-1"


def test_a_transaction_puts_and_a_collection_does_not() -> None:
    pushed, read = bundle_of(report_of()), bundle_of(report_of(), bundle="collection")
    for entry in pushed["entry"]:
        resource = entry["resource"]
        assert entry["request"] == {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"}
    assert (pushed["type"], read["type"]) == ("transaction", "collection")
    assert not everything(read, "request")


def test_no_mitoses_are_a_count_of_zero_without_a_hot_spot() -> None:
    found = observations(bundle_of(report_of(0), Order()))
    assert found["mitoses-total"]["valueQuantity"]["value"] == 0
    assert found["mai_baak"]["valueQuantity"]["value"] == 0
    assert "note" not in found["mai_baak"]
    assert "hotspot-x" not in components(found["mai_baak"])


@pytest.mark.parametrize("name", ["mai_baak", "nottingham_fd", "midog"])
def test_too_little_tissue_gives_no_value_but_the_reason_and_the_count(name: str) -> None:
    observation = observations(bundle_of(report_of(40, examined_mm2=0.5)))[name]
    assert not {"valueQuantity", "valueInteger"} & set(observation)
    assert observation["dataAbsentReason"]["coding"][0]["code"] == "not-performed"
    assert "less tissue" in observation["dataAbsentReason"]["text"]
    assert components(observation)["mitoses-window"] > 0
    assert components(observation)["area-sufficient"] is False
    assert "high-risk" not in components(observation)


def test_a_window_that_is_mostly_glass_has_its_tissue_and_the_grown_ones_reading() -> None:
    report = report_of(40, glass_round=True)
    found = observations(bundle_of(report))
    mai, score = components(found["mai_baak"]), components(found["nottingham_fd"])
    assert report.mai.grown
    grown = {name: value for name, value in mai.items() if name.startswith("grown")}
    assert grown == {
        "grown-count": report.mai.grown.count,
        "grown-area": pytest.approx(report.mai.grown.area_mm2),
        "grown-tissue": pytest.approx(report.mai.grown.tissue_mm2),
        "grown-high-risk": report.mai.grown.high_risk,
    }
    assert (mai["window-tissue"], mai["area-sufficient"]) == (report.mai.tissue_mm2, False)
    assert {"grown-count", "grown-score", "window-tissue"} <= set(score)


def test_no_tissue_at_all_has_no_density() -> None:
    assert "mitoses-per-mm2" not in observations(bundle_of(report_of(0, examined_mm2=0.0)))


def test_a_region_is_named_in_the_method() -> None:
    bundle = bundle_of(report_of(region=Rectangle(x=10, y=20, width=300, height=400)))
    assert "x 10, y 20, 300 x 400 level-0 pixels" in observations(bundle)["mitoses-total"]["method"]["text"]


def test_any_text_survives_in_json_and_in_the_narrative() -> None:
    order = ORDER.model_copy(update={"patient_name": NASTY, "block": NASTY, "patient_id": NASTY})
    bundle = bundle_of(report_of(name=f"{NASTY}\x07\n.svs"), order)
    (report,), (provenance,) = resources(bundle, "DiagnosticReport"), resources(bundle, "Provenance")
    assert report["subject"]["identifier"]["value"] == report["subject"]["display"] == NASTY
    narrative = "".join(ET.fromstring(report["text"]["div"]).itertext())
    assert f"scanned at x20 <by {NASTY}>" in narrative
    assert provenance["entity"][0]["what"]["display"] == f"{NASTY} .svs"


def test_an_empty_order_leaves_its_references_out() -> None:
    (report,) = resources(bundle_of(report_of(), Order()), "DiagnosticReport")
    assert not {"subject", "basedOn"} & set(report)
    assert [each["value"] for each in report["identifier"]] == ["analysis-12"]


def test_thousands_of_detections_are_counted_and_not_listed() -> None:
    report = with_detections(report_of(), 5000)
    bundle = bundle_of(report)
    assert observations(bundle)["mitoses-total"]["valueQuantity"]["value"] == 5000
    assert len(bundle["entry"]) == len(bundle_of(report_of())["entry"])


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("DiagnosticReport", {"status": "bogus"}, "DiagnosticReport.status cannot be bogus"),
        ("Observation", {"status": "preliminary-ish"}, "Observation.status cannot be"),
        ("Device", {"deviceName": [{"name": "a", "type": "nickname"}]}, "Device.deviceName.type cannot be nickname"),
        ("Observation", {"valueInteger": 1, "valueBoolean": True}, "no valid FHIR bundle"),
        ("Observation", {"status": None}, "no valid FHIR bundle"),
        ("Observation", {"method": "by eye"}, "no valid FHIR bundle"),
        ("Specimen", {"colour": "blue"}, "no valid FHIR bundle"),
    ],
)
def test_what_is_no_r4_is_refused(kind: str, changes: dict[str, Any], message: str) -> None:
    bundle = json.loads(to_fhir(report_of(), ORDER, FINAL))
    check_fhir(bundle)
    resources(bundle, kind)[0].update(changes)
    with pytest.raises(FormatUnavailable, match=message):
        check_fhir(bundle)


def test_a_bundle_to_do_each_for_itself_is_refused() -> None:
    bundle = json.loads(to_fhir(report_of(), ORDER, FINAL))
    with pytest.raises(FormatUnavailable, match=r"Bundle\.type cannot be batch"):
        check_fhir(bundle | {"type": "batch"})


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fhir.resources.R4B.bundle", None)
    with pytest.raises(FormatUnavailable, match=r"is not installed; pip install .*\[interop\]"):
        to_fhir(report_of(), ORDER, FINAL)
