"""What a person does about a held result, with real processes: release it, or give it to another order."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from service.cli.lis import _reviewer
from service.client.packing import packed
from service.refusals import KeyRequired, ScopeMissing
from service.store import keys
from service.store.audit import entries
from tests.databases import job_store
from tests.dicom_slide import write_dicom_slide
from tests.interop.site import ANNA, BERTA, Site, field, order, patients, result_of
from tests.slides import draw_tissue

WHY = {"reviewer": "Weiß, Käthe", "reason": "the label was read again"}


def signed(site: Site, number: str, slide: str, seed: int) -> str:
    """A result that was told and signed for Anna."""
    analysis_id = result_of(site, ANNA, number, slide, seed)
    site.sign(analysis_id)
    site.wait_until(lambda: [field(each, "OBR", 25) for each in site.lis.of(number)] == ["P", "F"])
    site.wait_until(lambda: [each["status"] for each in site.fhir.reports(analysis_id)] == ["preliminary", "final"])
    return analysis_id


def decide(site: Site, analysis_id: str, what: str, **asked: Any) -> Any:
    return site.http.post(f"/v1/analyses/{analysis_id}/{what}", json=WHY | asked)


def audited(site: Site, action: str, analysis_id: str) -> list[dict[str, Any]]:
    found = [each.detail for each in entries(site.engine) if (each.action, each.object) == (action, analysis_id)]
    return [each for each in found if "reason" in each]  # the others are refusals


def test_a_result_that_is_given_to_another_order_is_taken_back_first(site: Site) -> None:
    analysis_id = signed(site, "ORD-20", "S20-1", 20)
    site.tell(BERTA, *order("ORD-21", "S20-1"))
    held = site.status(analysis_id)["held"]
    [other] = [each["order_id"] for each in held["reasons"]]
    for what in ("hl7", "fhir"):  # nor can it be fetched under the wrong name
        refused = site.http.get(f"/v1/analyses/{analysis_id}/result", params={"format": what})
        assert (refused.status_code, refused.json()["code"]) == (409, "result-held")
    assert site.http.get(f"/fhir/DiagnosticReport/{analysis_id}").status_code == 409
    assert decide(site, analysis_id, "assignment", order=other, hold="0" * 12).json()["code"] == "hold-changed"
    assert decide(site, analysis_id, "assignment", order="none", hold=held["id"]).status_code == 404
    answer = decide(site, analysis_id, "assignment", order=other, hold=held["id"])
    assert answer.status_code == 200, answer.text
    assert (answer.json()["held"], answer.json()["order_id"]) == (None, other)
    site.wait_until(lambda: site.lis.of("ORD-21"))
    told = [each for each in site.lis.got if field(each, "ORC", 2) in ("ORD-20", "ORD-21")]
    assert [field(each, "ORC", 2) for each in told] == ["ORD-20"] * 3 + ["ORD-21"]
    assert [{field(each, "PID", 3).split("^")[0]} for each in told] == [{"1001"}] * 3 + [{"2002"}]
    codes = [{str(row[11]) for row in each.segments("OBX")} - {"X"} for each in told]
    assert codes == [{"P"}, {"F"}, {"D"}, {"P"}]  # who signed, signed for Anna
    assert [str(each.segment("OBR")).count("Weiß") for each in told] == [1, 2, 2, 1]  # she ordered it, too
    assert not any(str(row[5]) for row in told[2].segments("OBX"))
    site.wait_until(lambda: len(site.fhir.reports(analysis_id)) == 4)
    reports = site.fhir.reports(analysis_id)
    assert [each["status"] for each in reports] == ["preliminary", "final", "entered-in-error", "preliminary"]
    assert [each["subject"]["identifier"]["value"] for each in reports] == ["1001"] * 3 + ["2002"]
    assert len({each["id"] for each in reports[:3]}) == 1
    assert reports[3]["id"] != reports[2]["id"]
    assert "resultsInterpreter" not in reports[3]
    [void] = audited(site, "void_signature", analysis_id)
    assert (void["reviewer"], void["revision"]) == (WHY["reviewer"], 1)
    log = site.http.get(f"/v1/analyses/{analysis_id}/review").json()["entries"]
    assert [(each["action"], each["reason"]) for each in log] == [("sign", None), ("void", WHY["reason"])]
    assert site.http.get(f"/v1/analyses/{analysis_id}/detections").json()["signed"] is None
    site.sign(analysis_id, patient_id="2002")
    site.wait_until(lambda: [field(each, "OBR", 25) for each in site.lis.of("ORD-21")] == ["P", "F"])
    [entry] = audited(site, "assign_result", analysis_id)
    assert {name: entry[name] for name in ("reviewer", "reason", "order")} == WHY | {"order": other}


def test_nobody_is_told_more_before_the_first_receiver_has_taken_it_back(site: Site) -> None:
    analysis_id = signed(site, "ORD-22", "S22-1", 22)
    site.tell(BERTA, *order("ORD-23", "S22-1"))
    site.lis.code_for = lambda each: "AR" if field(each, "ORC", 2) == "ORD-22" else "AA"
    held = site.status(analysis_id)["held"]
    decide(site, analysis_id, "assignment", order=held["reasons"][0]["order_id"], hold=held["id"])
    site.wait_until(lambda: len(site.lis.of("ORD-22")) == 3)
    site.settle()
    assert site.lis.of("ORD-23") == []
    assert [each["status"] for each in site.fhir.reports(analysis_id)][2:] == ["entered-in-error"]
    site.lis.code_for = lambda _: "AA"
    queue = site.command("lis", "queue").stdout.splitlines()
    [number] = [line.split()[0] for line in queue if analysis_id in line and "refused" in line]
    assert site.command("lis", "retry", number).returncode == 0
    site.wait_until(lambda: site.lis.of("ORD-23"))
    assert patients(site.lis.of("ORD-23")) == {"2002"}


def test_a_person_releases_a_result_by_the_command(site: Site, tmp_path: Path) -> None:
    site.tell(ANNA, *order("ORD-24", "S24-1", obr18="B26-00017"))
    folder = write_dicom_slide(tmp_path / "S24-1", draw_tissue(512, 512, 24), ContainerIdentifier="S24-1")
    with packed(folder) as (path, _):
        analysis_id = site.upload(path)
    site.finish(analysis_id)
    hold = site.status(analysis_id)["held"]["id"]
    assert [each["id"] for each in site.http.get("/v1/analyses?held=true").json()["analyses"]].count(analysis_id) == 1
    assert hold in site.command("lis", "held").stdout
    words = ("--name", "Weiß, Käthe", "--reason", "the scanner had the last patient still")
    assert "not-found" in site.command("lis", "release", "0" * 12, *words).stderr
    assert site.command("lis", "release", hold, *words).returncode == 0
    site.wait_until(lambda: site.lis.of("ORD-24"))
    [entry] = audited(site, "release_result", analysis_id)
    assert (entry["reviewer"], entry["reason"], entry["conflicts"]) == (words[1], words[3], ["patient-conflict"])
    site.sign(analysis_id)  # what was decided is not asked again
    site.wait_until(lambda: [field(each, "OBR", 25) for each in site.lis.of("ORD-24")] == ["P", "F"])


def test_who_signs_for_another_patient_holds_the_result(site: Site) -> None:
    analysis_id = result_of(site, ANNA, "ORD-25", "S25-1", 25)
    site.wait_until(lambda: site.lis.of("ORD-25"))
    site.sign(analysis_id, patient_id="2002")
    assert site.status(analysis_id)["held"]["reasons"][0]["detail"].startswith("the person who signed")
    site.settle()
    assert [field(each, "OBR", 25) for each in site.lis.of("ORD-25")] == ["P"]


def test_what_an_order_says_anew_of_its_patient_goes_out_and_another_patient_does_not(site: Site) -> None:
    analysis_id = signed(site, "ORD-26", "S26-1", 26)
    site.tell(ANNA.replace("Alt^Anna", "Neu^Anna"), *order("ORD-26", "S26-1", "XO"))
    site.wait_until(lambda: len(site.lis.of("ORD-26")) == 3)
    assert field(site.lis.of("ORD-26")[2], "PID", 5).startswith("Neu^")
    site.tell(BERTA, *order("ORD-26", "S26-1", "XO"))
    site.settle()
    assert patients(site.lis.of("ORD-26")) == {"1001"}
    assert site.status(analysis_id)["held"]["reasons"][0]["code"] == "patient-conflict"


def test_two_orders_of_two_patients_for_a_slide_that_comes_later(site: Site) -> None:
    site.tell(ANNA, *order("ORD-27", "S27-1"))
    site.tell(BERTA, *order("ORD-28", "S27-1"))
    analysis_id = site.slide("S27-1", 27)
    site.finish(analysis_id)
    site.settle()
    assert site.lis.of("ORD-27") == site.lis.of("ORD-28") == []
    assert site.fhir.reports(analysis_id) == []
    held = site.status(analysis_id)["held"]
    site.tell("ORC|CA|ORD-27")
    assert site.status(analysis_id)["held"] == held  # a person says when it is over


def test_a_second_order_for_a_result_that_was_told_is_for_a_person_too(site: Site) -> None:
    analysis_id = result_of(site, ANNA, "ORD-29", "S29-1", 29)
    site.wait_until(lambda: site.lis.of("ORD-29"))
    site.tell(ANNA, *order("ORD-30", "S29-1"))
    assert site.status(analysis_id)["held"]["reasons"][0]["code"] == "second-order"
    site.settle()
    assert site.lis.of("ORD-30") == []


def test_only_keys_that_may_review_decide(tmp_path: Path) -> None:
    engine: Engine = job_store(tmp_path)
    assert (_reviewer(engine, "default", "A", None).key_id or "").startswith("command line")
    _, reader = keys.create(engine, "ehr", "default", ["read", "submit"])
    key_id, reviewer = keys.create(engine, "pathologist", "default", ["review"])
    _, elsewhere = keys.create(engine, "other", "other", ["review"])
    assert _reviewer(engine, "default", "A", reviewer).key_id == key_id
    for secret, kind in ((None, KeyRequired), ("mk_x", KeyRequired), (reader, ScopeMissing), (elsewhere, ScopeMissing)):
        with pytest.raises(kind):
            _reviewer(engine, "default", "A", secret)
    engine.dispose()


def test_a_slide_that_is_analysed_again_tells_nothing_over_what_is_signed(site: Site) -> None:
    first = signed(site, "ORD-31", "S31-1", 31)
    again = site.slide("S31-1", 31)
    site.finish(again, count=3)
    site.settle()
    assert [field(each, "OBR", 25) for each in site.lis.of("ORD-31")] == ["P", "F"]
    held = site.status(again)["held"]
    assert [each["code"] for each in held["reasons"]] == ["second-result"]
    site.sign(again)
    assert site.status(again)["held"] == held
    assert decide(site, again, "release", hold=held["id"]).status_code == 200
    site.wait_until(lambda: len(site.lis.of("ORD-31")) == 4)
    assert [field(each, "OBR", 25) for each in site.lis.of("ORD-31")][2:] == ["P", "F"]
    assert site.status(first)["held"] is None


def test_other_slides_of_a_case_are_told_beside_the_one_that_is_signed(site: Site) -> None:
    site.tell(ANNA, *order("ORD-32", "", obr18="B26-32"))
    for number, slide in ((32, "Case32-a"), (33, "Case32-b")):
        analysis_id = site.slide(slide, number, order={"accession_number": "B26-32"})
        site.finish(analysis_id)
        site.sign(analysis_id)
        now = site.status(analysis_id)
        assert (now["held"], now["request"]["order"]["patient_id"]) == (None, "1001")
