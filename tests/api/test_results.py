"""The result in every format over HTTP: of a DICOM slide and of one that is none, before and after signing."""

import asyncio
import io
import json
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from email.parser import BytesParser
from functools import partial
from pathlib import Path
from typing import Any

import highdicom as hd
import hl7
import numpy as np
import pydicom
import pytest
from fhir.resources.R4B.bundle import Bundle
from httpx import Client, Response
from pypdf import PdfReader

from service.activity_report import Activity
from service.api import layers, results, review
from service.api.formats import FORMATS, Wanted, wanted
from service.api.state import State
from service.intake.accept import accept_reference
from service.intake.sandbox import Sandbox
from service.order import Order
from service.probability_map import ProbabilityMap
from service.quality import QualityMap
from service.refusals import FormatUnavailable
from service.report import Report
from service.store.analyses import Analyses
from service.store.database import review_entries, writing
from service.store.records import Submission
from service.store.results import Result, write_result
from service.store.settings import load_settings
from service.store.slides import delete_slide
from service.store.storage import Storage
from service.tiling import Lattice, cover
from service.tissue import TissueMask
from service.worker.broker import Broker
from tests.api.small_app import app_of, client_of
from tests.databases import job_store
from tests.dicom_slide import BASE, write_dicom_slide
from tests.export.hospital import ORDER, report_of
from tests.slides import draw_tissue, write_pyramid

SIZE = (600, 500)
RELATED = 'multipart/related; type="application/dicom"'


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[State]:
    folder = tmp_path_factory.mktemp("data")
    settings = load_settings(data_dir=folder, hl7_sender="mitosis^lab")
    engine = job_store(folder)
    with Sandbox() as sandbox:
        yield State(
            settings, engine, Storage(folder, [str(folder.parent)]), Analyses(engine), Broker(settings), sandbox
        )
    engine.dispose()


@pytest.fixture(scope="module")
def client(state: State) -> Iterator[Client]:
    with client_of(app_of(state, results, layers, review)) as client:
        yield client


def the_report() -> Report:
    return report_of(12, size=SIZE, mpp=(0.25, 0.25))


def analysed(state: State, path: Path, order: Order | None = ORDER) -> str:
    """An analysis of a slide that has ended well."""
    slide = asyncio.run(accept_reference(state.engine, state.sandbox, str(path), [str(path.parent)], "default"))
    request = {"order": order.model_dump(mode="json") if order else None}
    analysis, _ = state.analyses.submit(Submission("default", slide.id, slide.name, request, "m", "0" * 64))
    claim = state.analyses.claim(state.analyses.to_send(analysis.id)[0][0])
    assert claim
    report = the_report()
    report = report.model_copy(update={"analysis": report.analysis.model_copy(update={"id": analysis.id})})
    folder = state.storage.result_folder(analysis.id)
    lattice = Lattice.of(*SIZE, (1.0, 1.0), 16)
    probabilities = ProbabilityMap.empty(lattice)
    probabilities.done = set(cover(lattice))
    probabilities.save(folder / "map.map")
    tissue = TissueMask(np.full((10, 12), 255, np.uint8), (50.0, 50.0), (0.25, 0.25))
    QualityMap(tissue, np.zeros((10, 12), np.uint8)).save(folder / "map.tissue")
    arrays = {kind: folder / f"map.{kind}" for kind in ("map", "tissue")}
    assert state.analyses.succeed(claim, *write_result(folder, report.to_json().encode(), arrays))
    return analysis.id


@pytest.fixture
def dicom(state: State, tmp_path: Path) -> str:
    return analysed(state, write_dicom_slide(tmp_path / "slide", draw_tissue(*SIZE)))


@pytest.fixture
def tiff(state: State, tmp_path: Path) -> str:
    return analysed(state, write_pyramid(tmp_path / "a.tif", [draw_tissue(*SIZE)]), order=None)


def sign(state: State, analysis_id: str, revision: int) -> None:
    report = the_report()
    kept = Activity(counts=report.counts, mai=report.mai, scores=report.scores).model_dump(mode="json")
    row = {"analysis_id": analysis_id, "revision": revision, "action": "sign", "reviewer": "Weiß, Käthe"}
    with writing(state.engine) as connection:
        connection.execute(review_entries.insert().values(**row, counted=kept, at=time.time()))


def get(client: Client, analysis_id: str, kind: str = "", **headers: str) -> Response:
    answer = client.get(f"/v1/analyses/{analysis_id}/result{kind and f'?format={kind}'}", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def refused(client: Client, analysis_id: str, kind: str) -> str:
    answer = client.get(f"/v1/analyses/{analysis_id}/result?format={kind}")
    assert (answer.status_code, answer.json()["code"]) == (406, "format-unavailable")
    return str(answer.json()["detail"])


def parts_of(answer: Response) -> list[bytes]:
    """By the standard library's parser."""
    message = BytesParser().parsebytes(
        b"Content-Type: " + answer.headers["content-type"].encode() + b"\r\n\r\n" + answer.content
    )
    assert message.is_multipart()
    parts: list[Any] = list(message.get_payload())
    assert {part.get_content_type() for part in parts} == {"application/dicom"}
    return [part.get_payload(decode=True) for part in parts]


def files_of(answer: Response) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_pdf_has_the_figures_of_the_slide_and_words_alone_when_that_is_gone(
    client: Client, dicom: str, state: State
) -> None:
    answer = get(client, dicom, Accept="application/pdf")
    assert answer.headers["content-type"] == "application/pdf"
    first = PdfReader(io.BytesIO(answer.content))
    assert sum(len(page.images) for page in first.pages) == 2
    assert "ORD-99" in first.pages[0].extract_text()
    assert get(client, dicom, "pdf").content == answer.content
    sign(state, dicom, revision=1)
    analysis = state.analyses.get(dicom, "default")
    delete_slide(state.engine, state.storage, "default", analysis.slide_id)
    told = PdfReader(io.BytesIO(get(client, dicom, "pdf").content))
    assert "Signed by Weiß, Käthe" in told.pages[0].extract_text()
    assert not any(len(page.images) for page in told.pages)


def test_fhir_is_a_bundle_for_who_reads(client: Client, dicom: str) -> None:
    answer = get(client, dicom, Accept="application/fhir+json")
    assert answer.headers["content-type"] == "application/fhir+json"
    bundle = json.loads(answer.content)
    Bundle.model_validate(bundle)
    assert bundle["type"] == "collection"
    assert bundle["entry"][0]["resource"]["basedOn"][0]["identifier"]["value"] == "ORD-99"


@pytest.mark.parametrize("accept", ["application/hl7-v2", "application/hl7-v2+er7", "x-application/hl7-v2+er7"])
def test_hl7_is_a_message_whatever_it_is_called(client: Client, dicom: str, accept: str) -> None:
    answer = get(client, dicom, Accept=accept)
    assert answer.headers["content-type"] == "application/hl7-v2; charset=utf-8"
    message = hl7.parse(answer.content.decode())
    assert [str(message["MSH"][0][number]) for number in (3, 4, 9)] == ["mitosis", "lab", "ORU^R01^ORU_R01"]
    assert str(message["OBR"][0][2]) == "ORD-99"
    assert 0 < len(str(message["MSH"][0][10])) <= 20


@pytest.mark.parametrize("accept", [RELATED, "application/dicom", f"{RELATED}; transfer-syntax=*, */*;q=0.1"])
@pytest.mark.parametrize("kind", ["", "dicom"])
def test_dicomweb_clients_get_the_objects_as_parts(client: Client, dicom: str, accept: str, kind: str) -> None:
    answer = get(client, dicom, kind, Accept=accept)
    assert answer.headers["content-type"].startswith(f"{RELATED}; boundary=")
    report, annotations = (pydicom.dcmread(io.BytesIO(part)) for part in parts_of(answer))
    assert hd.sr.Comprehensive3DSR.from_dataset(report).PreliminaryFlag == "PRELIMINARY"
    found = hd.ann.MicroscopyBulkSimpleAnnotations.from_dataset(annotations)
    assert found.ReferencedImageSequence[0].ReferencedSOPInstanceUID == BASE


def test_people_get_the_same_objects_as_files(client: Client, dicom: str) -> None:
    answer = get(client, dicom, "dicom", Accept="text/html,*/*;q=0.8")
    assert answer.headers["content-type"] == "application/zip"
    files = files_of(answer)
    assert list(files) == ["report.dcm", "annotations.dcm"]
    assert list(files.values()) == parts_of(get(client, dicom, "dicom", Accept=RELATED))


def test_the_maps_are_files_of_their_own_and_beside_the_others_where_a_laboratory_wants_them(
    client: Client, state: State, dicom: str
) -> None:
    kinds = {"dicom-map": "Parametric Map Storage", "dicom-area": "Segmentation Storage"}
    alone = {kind: get(client, dicom, kind) for kind in kinds}
    assert {each.headers["content-type"] for each in alone.values()} == {"application/dicom"}
    for kind, name in kinds.items():
        assert pydicom.dcmread(io.BytesIO(alone[kind].content)).SOPClassUID.name == name
    settings = state.settings.model_copy(update={"dicom_maps": ("area", "map")})
    with client_of(app_of(replace(state, settings=settings), results)) as wanting:
        files = files_of(get(wanting, dicom, "dicom"))
    assert list(files) == ["report.dcm", "annotations.dcm", "area.dcm", "map.dcm"]
    assert files["map.dcm"] == alone["dicom-map"].content


@pytest.mark.parametrize("kind", sorted({*FORMATS} - {"pdf"}))
def test_the_same_result_is_the_same_bytes(client: Client, dicom: str, kind: str) -> None:
    first, second = get(client, dicom, kind), get(client, dicom, kind)
    assert first.content == second.content
    assert first.headers["etag"] == second.headers["etag"]


def test_what_was_signed_is_final_and_then_amended(client: Client, state: State, dicom: str) -> None:
    told = set()
    for revision, fhir, obx in ((1, "final", "F"), (2, "amended", "C")):
        sign(state, dicom, revision)
        answers = {kind: get(client, dicom, kind) for kind in ("fhir", "hl7", "dicom")}
        told |= {answer.headers["etag"] for answer in answers.values()}
        assert answers["fhir"].json()["entry"][0]["resource"]["status"] == fhir
        assert str(hl7.parse(answers["hl7"].text)["OBR"][0][25]) == obx
        report = pydicom.dcmread(io.BytesIO(files_of(answers["dicom"])["report.dcm"]))
        assert (report.PreliminaryFlag, report.CompletionFlagDescription) == ("FINAL", fhir)
        replaced = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
        assert len(replaced) == revision
    assert len(told) == 6


def test_who_draws_is_told_what_was_signed_with_what_was_rejected(client: Client, state: State, tiff: str) -> None:
    def kinds() -> list[str]:
        features = get(client, tiff, "geojson").json()["features"]
        return [each["properties"]["classification"]["name"] for each in features]

    assert kinds().count("Mitotic figure") == 12
    row = {
        "analysis_id": tiff,
        "revision": 1,
        "action": "reject",
        "detection_id": 3,
        "reviewer": "B",
        "at": time.time(),
    }
    with writing(state.engine) as connection:
        connection.execute(review_entries.insert().values(**row))
    assert kinds().count("Mitotic figure") == 12, "nobody has signed"
    sign(state, tiff, 2)
    assert (kinds().count("Mitotic figure"), kinds().count("Mitotic figure: Rejected")) == (11, 1)
    boxes = get(client, tiff, "midog").json()["annotations"]
    assert [each["id"] for each in boxes if each["category_id"] == 2] == [3]


@pytest.mark.parametrize(
    ("kind", "routes"),
    [
        ("report", ("result", "result?format=fhir", "result?format=csv", "overlay.png", "detections/1.png")),
        ("map", ("heatmap.png", "layers", "layers/heatmap.png", "detections?candidates_from=0.1")),
        ("tissue", ("overlay.png", "layers", "detections")),
    ],
)
def test_what_is_damaged_is_a_fault_of_the_service_and_no_slide_s(
    client: Client, state: State, tiff: str, kind: str, routes: tuple[str, ...]
) -> None:
    path = Result.of(state.engine, state.storage, state.analyses.get(tiff, "default")).path(kind)
    path.write_bytes(path.read_bytes()[:-50])
    for route in routes:
        answer = client.get(f"/v1/analyses/{tiff}/{route}")
        assert (answer.status_code, answer.json()["code"]) == (500, "stored-damaged"), route
    assert client.get(f"/v1/analyses/{tiff}/thumbnail.png").status_code == 200


@pytest.mark.parametrize("route", ["result", "result?format=csv", "overlay.png", "thumbnail.png"])
def test_what_is_known_is_not_sent_again(client: Client, tiff: str, route: str) -> None:
    address = f"/v1/analyses/{tiff}/{route}"
    first = client.get(address)
    for tags, status in ((first.headers["etag"], 304), (f'"x", W/{first.headers["etag"]}', 304), ('"x"', 200)):
        again = client.get(address, headers={"If-None-Match": tags})
        assert (again.status_code, again.headers["etag"]) == (status, first.headers["etag"])
        assert again.content == (b"" if status == 304 else first.content)


def test_pictures_are_drawn_once_and_again_where_they_are_damaged(client: Client, state: State, tiff: str) -> None:
    address = f"/v1/analyses/{tiff}/overlay.png"
    first = client.get(address)
    assert (first.status_code, first.headers["content-type"]) == (200, "image/png")
    [kept] = state.storage.result_folder(tiff).glob("overlay-*")
    kept.write_bytes(first.content[:-20])
    assert client.get(address).content == first.content
    assert not list(state.storage.result_folder(tiff).glob("*.partial"))


def test_a_slide_that_is_no_dicom_has_all_else(client: Client, tiff: str) -> None:
    assert "no DICOM slide" in refused(client, tiff, "dicom")
    assert "patient_id" in refused(client, tiff, "hl7")  # nobody ordered it
    assert get(client, tiff, "fhir").json()["entry"][0]["resource"]["status"] == "preliminary"
    assert "there is no format xlsx" in refused(client, tiff, "xlsx")


def test_an_order_of_somebody_else_makes_no_dicom(client: Client, state: State, tmp_path: Path) -> None:
    somebody = ORDER.model_copy(update={"patient_id": "7654321"})
    other = analysed(state, write_dicom_slide(tmp_path / "slide", draw_tissue(*SIZE)), somebody)
    assert "patient_id is not the DICOM slide's" in refused(client, other, "dicom")


def test_dicom_outlives_the_slide_once_it_was_made(client: Client, state: State, dicom: str, tmp_path: Path) -> None:
    late = analysed(state, write_dicom_slide(tmp_path / "other", draw_tissue(*SIZE, seed=1)))
    before = get(client, dicom, "dicom")
    for analysis_id in (dicom, late):
        delete_slide(state.engine, state.storage, "default", state.analyses.get(analysis_id, "default").slide_id)
    assert get(client, dicom, "dicom").content == before.content
    assert "the slide was deleted" in refused(client, late, "dicom")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", Wanted("json")),
        ("*/*", Wanted("json")),
        ("application/*", Wanted("json")),
        ("text/html, application/xhtml+xml, */*;q=0.8", Wanted("json")),
        ("application/json;q=0.5, text/csv", Wanted("csv")),
        ("Text/CSV ; charset=utf-8", Wanted("csv")),
        ("application/json;q=0, application/fhir+json;q=0.1", Wanted("fhir")),
        ("application/geo+json;q=odd", Wanted("geojson")),
        ("application/zip", Wanted("dicom")),
        ("application/dicom", Wanted("dicom", dicomweb=True)),
        ("multipart/related", Wanted("dicom", dicomweb=True)),
        (RELATED, Wanted("dicom", dicomweb=True)),
        ('multipart/related; type="image/jpeg", text/csv', Wanted("csv")),
    ],
)
def test_accept_chooses_what_it_prefers(accept: str, expected: Wanted) -> None:
    assert wanted(None, accept) == expected


@pytest.mark.parametrize(
    "accept", ["text/html", "application/json;q=0", 'multipart/related; type="image/jpeg"', "image/*"]
)
def test_what_there_is_not_is_refused(accept: str) -> None:
    with pytest.raises(FormatUnavailable, match="cannot be had as"):
        wanted(None, accept)


def test_the_query_comes_before_accept() -> None:
    assert wanted("csv", "application/json") == Wanted("csv")
    assert wanted("dicom", "application/json") == Wanted("dicom")
    assert wanted("json", RELATED).format == "json"
    assert np.unique([wanted("dicom", text).dicomweb for text in ("", "*/*", "application/zip")]).tolist() == [False]


def test_a_field_of_ones_own_is_counted_with_the_tissue_in_it(client: Client, tiff: str) -> None:
    report = client.get(f"/v1/analyses/{tiff}/result").json()
    places = np.array([(each["x_um"], each["y_um"]) for each in report["detections"]])
    x, y = report["detections"][0]["x"], report["detections"][0]["y"]
    ask = partial(client.get, f"/v1/analyses/{tiff}/field")
    small = ask(params={"x": x, "y": y, "diameter_um": 40}).json()
    assert small["count"] == np.count_nonzero(np.hypot(*(places - places[0]).T) <= 20)
    assert small["area_mm2"] == pytest.approx(np.pi * 0.02**2, abs=1e-4)
    assert 0 < small["tissue_mm2"] <= small["area_mm2"]
    whole = ask(params={"x": x, "y": y, "diameter_um": 20_000}).json()
    assert whole["count"] == report["counts"]["total"]
    window = client.get(f"/v1/analyses/{tiff}/hotspot", params={"x": x, "y": y}).json()
    same = ask(params={"x": x, "y": y, "diameter_um": 2 * window["hotspot"]["radius_um"]}).json()
    assert (same["count"], same["area_mm2"]) == (window["count"], pytest.approx(window["area_mm2"], rel=1e-4))
    assert same["tissue_mm2"] == pytest.approx(window["tissue_mm2"], rel=1e-4)
    assert small["tissue_mm2"] < same["tissue_mm2"] <= whole["tissue_mm2"]
    assert ask(params={"x": x, "y": y, "diameter_um": 0}).status_code == 422


def test_a_hot_spot_of_ones_own_is_counted_as_the_automatic_one(client: Client, tiff: str) -> None:
    mai = client.get(f"/v1/analyses/{tiff}/result").json()["mai"]
    asked = {"x": mai["hotspot"]["x"], "y": mai["hotspot"]["y"]}
    here = client.get(f"/v1/analyses/{tiff}/hotspot", params=asked).json()
    assert (here["count"], here["area_mm2"], here["interval"]) == (mai["count"], mai["area_mm2"], mai["interval"])
    change = {"reviewer": "Weiß, Käthe", "changes": [{"action": "reject", "id": 1}]}
    answer = client.patch(f"/v1/analyses/{tiff}/detections", json=change, headers={"If-Match": '"0"'})
    assert answer.status_code == 200, answer.text
    after = client.get(f"/v1/analyses/{tiff}/hotspot", params=asked).json()
    assert after["count"] == here["count"] - 1
    assert client.get(f"/v1/analyses/{tiff}/hotspot", params={"x": -1, "y": 0}).status_code == 422
