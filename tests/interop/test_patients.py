"""Nobody's result reaches another patient: a real listener and gateway, and receivers that record what reaches them."""

from pathlib import Path

from service.client.packing import packed
from tests.dicom_slide import write_dicom_slide
from tests.interop.site import ANNA, BERTA, Site, field, order, patients, result_of, service_request
from tests.slides import draw_tissue


def test_what_was_signed_for_one_patient_goes_to_no_other_by_itself(site: Site) -> None:
    analysis_id = result_of(site, ANNA, "ORD-1", "S1-1", 1)
    site.sign(analysis_id)
    site.wait_until(lambda: [field(each, "OBR", 25) for each in site.lis.of("ORD-1")] == ["P", "F"])
    site.wait_until(lambda: site.fhir.reports(analysis_id))
    said = site.tell(BERTA, *order("ORD-2", "S1-1"), f3="OTHER")
    assert field(said, "MSA", 1) == "AA"
    site.settle()
    assert patients(site.lis.of("ORD-1") + site.lis.of("ORD-2")) == {"1001"}
    assert {each["subject"]["identifier"]["value"] for each in site.fhir.reports(analysis_id)} == {"1001"}
    assert site.status(analysis_id)["request"]["order"]["patient_id"] == "1001"
    assert site.status(analysis_id)["held"]["reasons"][0]["code"] == "patient-conflict"
    shown = site.command("lis", "held").stdout
    assert analysis_id in shown
    assert "patient-conflict" in shown


def test_numbers_are_known_by_who_assigned_them(site: Site) -> None:
    site.tell(ANNA, *order("950^A", "S2-1"))
    site.tell(ANNA, *order("901^A", "S2-2"))
    assert field(site.tell("ORC|CA|950^B"), "ORC", 1) == "UC"
    site.tell(BERTA, *order("901^B", "S2-3", "XO"))
    for slide in ("S2-1", "S2-2"):
        found = site.status(site.slide(slide, 2))
        assert found["request"]["order"]["patient_id"] == "1001"
    assert field(site.tell("ORC|CA|950^A"), "ORC", 1) == "UC"  # its slide has come
    placed = site.http.post("/fhir/ServiceRequest", json=service_request("http://a", "FN-1", "S2-4"))
    assert placed.status_code == 201
    revoked = service_request("http://b", "FN-1", "S2-4") | {"status": "revoked"}
    assert site.http.post("/fhir/ServiceRequest", json=revoked).status_code == 404
    assert site.http.get(placed.headers["Location"]).json()["status"] == "active"


def test_a_slide_of_another_patient_than_its_order_is_sent_nowhere(site: Site, tmp_path: Path) -> None:
    site.tell(ANNA, *order("ORD-3", "S3-1", obr18="B26-00017"))
    folder = write_dicom_slide(tmp_path / "S3-1", draw_tissue(512, 512, 3), ContainerIdentifier="S3-1")
    with packed(folder) as (path, name):
        uploaded = site.http.put(f"/v1/slides/{name}", content=path.read_bytes())
    assert uploaded.status_code == 201, uploaded.text
    queued = site.http.post("/v1/analyses", json={"slide_id": uploaded.json()["slide_id"]})
    analysis_id = queued.json()["id"]
    assert queued.json()["request"]["order"]["placer_order_number"] == "ORD-3"
    site.finish(analysis_id)
    site.settle()
    assert site.lis.of("ORD-3") == []
    assert site.fhir.reports(analysis_id) == []
    assert site.status(analysis_id)["held"]["reasons"][0]["code"] == "patient-conflict"


def test_training_touches_no_production(site: Site) -> None:
    assert field(site.tell(ANNA, *order("ORD-4", "S4-1")), "ORC", 1) == "OK"
    said = site.tell(BERTA, *order("ORD-4", "S4-1", "XO"), f11="T")
    assert (field(said, "MSH", 11), field(said, "MSA", 1)) == ("T", "AA")
    assert field(site.tell(BERTA, *order("ORD-4T", "S4-2"), f11="D"), "MSH", 11) == "D"
    for slide, number in (("S4-1", 4), ("S4-2", 5)):
        site.finish(site.slide(slide, number))
    site.wait_until(lambda: site.lis.of("ORD-4"))
    site.settle()
    assert patients(site.lis.of("ORD-4")) == {"1001"}
    assert site.lis.of("ORD-4T") == []
    assert {field(each, "MSH", 11) for each in site.lis.of("ORD-4")} == {"P"}
    assert field(site.tell(ANNA, *order("ORD-4S", "S4-3"), f3="SCHOOL", f11="T"), "MSH", 11) == "T"
    analysis_id = site.slide("S4-3", 26)
    site.finish(analysis_id)
    site.wait_until(lambda: site.lis.of("ORD-4S") and site.fhir.reports(analysis_id))
    assert {field(each, "MSH", 11) for each in site.lis.of("ORD-4S")} == {"T"}
    assert site.fhir.reports(analysis_id)[0]["meta"]["tag"][0]["code"] == "T"


def test_the_legal_name_and_the_valid_identifier_are_taken(site: Site) -> None:
    patient = (
        "PID|1||9999^^^KIS&1.2.3.4&ISO^MR^^19900101^20000101~1001^^^KIS&1.2.3.4&ISO^MR^^20000101"
        "||Jung^Anna^^^^^M~Alt^Anna^^^^^L||19500101|F"
    )
    analysis_id = result_of(site, patient, "ORD-5", "S5-1", 6)
    site.wait_until(lambda: site.fhir.reports(analysis_id))
    subject = site.fhir.reports(analysis_id)[0]["subject"]
    assert (subject["identifier"]["value"], subject["display"]) == ("1001", "Alt, Anna")
    asked = site.status(analysis_id)["request"]["order"]
    assert (asked["patient_id"], asked["patient_name"]) == ("1001", "Alt, Anna")
    assert site.http.post("/fhir/ServiceRequest", json=service_request("http://a", "FN-5", "S5-2")).status_code == 201
    assert site.status(site.slide("S5-2", 7))["request"]["order"]["patient_name"] == "Alt, Anna"


def test_identifiers_go_back_as_they_came(site: Site) -> None:
    patient = "PID|1||1001^^^KIS&1.2.3.4&ISO^MR^^20000101~77^^^KK&1.2.9&ISO^NI||Alt^Anna^^^^^L||19500101|F"
    number = "ORD-6^KIS^1.2.3.4^ISO"
    asked = [
        f"ORC|NW|{number}|F-6^LAB^1.2.5^ISO",
        f"OBR|1|{number}|F-6^LAB^1.2.5^ISO|MAI^Mitosenzählung^L||||||||||||4711^Weiß^Käthe^^^^^^KIS||B26-17",
        "SPM|1|^S26-6-A&LAB||TISS^Tissue^HL70487",
        "SAC|||S6-1",
        "OBX|1|ST|stain^Stain^99MIT||H&E",
    ]
    assert field(site.tell(patient, *asked), "ORC", 1) == "OK"
    analysis_id = site.slide("S6-1", 8)
    site.finish(analysis_id)
    site.wait_until(lambda: site.lis.of("ORD-6"))
    [told] = site.lis.of("ORD-6")
    assert field(told, "PID", 3) == patient.split("|")[3]
    assert [field(told, "ORC", 2), field(told, "ORC", 3)] == [number, "F-6^LAB^1.2.5^ISO"]
    assert [field(told, "OBR", 2), field(told, "OBR", 3)] == [number, "F-6^LAB^1.2.5^ISO"]
    assert field(told, "OBR", 16) == "4711^Weiß^Käthe^^^^^^KIS"
    assert field(told, "SPM", 2) == "^S26-6-A&LAB"
    assert site.status(analysis_id)["request"]["order"]["stain"] == "H&E"
    placed = service_request("http://orders.example", "FN-6", "S6-2")
    assert site.http.post("/fhir/ServiceRequest", json=placed).status_code == 201
    analysis_id = site.slide("S6-2", 9)
    site.finish(analysis_id)
    site.wait_until(lambda: site.fhir.reports(analysis_id))
    report = site.fhir.reports(analysis_id)[0]
    assert report["subject"]["identifier"] == placed["contained"][0]["identifier"][0]
    assert report["basedOn"][0]["identifier"] == placed["identifier"][0]


def test_a_message_that_is_not_taken_stops_no_other_orders(site: Site) -> None:
    site.lis.code_for = lambda each: "AE" if field(each, "ORC", 2).startswith("ORD-7A") else "AA"
    first = result_of(site, ANNA, "ORD-7A", "S7-1", 10)
    site.wait_until(lambda: site.lis.of("ORD-7A"))
    result_of(site, BERTA, "ORD-7B", "S7-2", 11)
    site.wait_until(lambda: site.lis.of("ORD-7B"), 15)
    site.sign(first)
    site.settle()
    assert {field(each, "OBR", 25) for each in site.lis.of("ORD-7A")} == {"P"}  # its own versions keep their order
    site.lis.code_for = lambda _: "AA"


def test_a_dicom_slide_is_known_by_its_own_label(site: Site, tmp_path: Path) -> None:
    patient = "PID|1||1234567^^^KIS^MR||Müller^Jörg^^^^^L||19610228|F"
    assert field(site.tell(patient, *order("ORD-8", "S8-1-LABEL", obr18="")), "ORC", 1) == "OK"
    folder = write_dicom_slide(tmp_path / "scan 0017", draw_tissue(512, 512, 12), ContainerIdentifier="S8-1-LABEL")
    with packed(folder) as (path, _):
        analysis_id = site.upload(path)
    asked = site.status(analysis_id)["request"]["order"]
    assert asked["placer_order_number"] == "ORD-8"
    assert asked["accession_number"] is None  # F-ORD-8 is the filler's number
    site.finish(analysis_id)
    site.wait_until(lambda: site.lis.of("ORD-8"))
