"""A service and an archive: slides come from Orthanc, results go back into the same study, once for each version."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from tests.conftest import FIELD_MPP
from tests.dicom_slide import BASE, CONTAINER, SERIES, STUDY, write_dicom_slide
from tests.export.dicom_objects import errors_in
from tests.export.hospital import ORDER
from tests.integration.running import Running
from tests.orthanc import Orthanc

LOGIN = "mitosis:s3cret"
SERIES_PATH = f"studies/{STUDY}/series/{SERIES}"


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("archive"), login=LOGIN) as archive:
        yield archive


@pytest.fixture(scope="module")
def slide(mitoses_image: Path, orthanc: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DICOM slide with mitoses, in a folder and in the archive."""
    folder = tmp_path_factory.mktemp("share") / "case"
    write_dicom_slide(folder, np.asarray(Image.open(mitoses_image)), FIELD_MPP)
    orthanc.take(folder)
    return folder


@pytest.fixture(scope="module")
def server(slide: Path, shared: Path, orthanc: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that reads from the archive and the share, and stores in the archive."""
    roots = f"{orthanc.url}, {slide.parent}, {(shared / 'data/slides').resolve()}"
    settings = {"roots": roots, "dicomweb": orthanc.url, "dicomweb_login": LOGIN, "lease_s": "3"}
    settings |= {"dicom_maps": "map, area"}
    running = Running(tmp_path_factory.mktemp("data"), **settings).start()
    yield running
    running.stop()


def analyzed(server: Running, uri: str | Path, **request: Any) -> str:
    answer = server.http.post("/v1/analyses", json={"uri": str(uri), **request}, timeout=60)
    assert answer.status_code == 202, answer.text
    analysis_id = str(answer.json()["id"])
    assert server.wait(analysis_id)["status"] == "succeeded", server.told()
    return analysis_id


def objects_about(orthanc: Orthanc, server: Running, analysis_id: str) -> dict[str, list[Dataset]]:
    """What the archive holds of an analysis, by modality and in the order of its versions."""
    content = server.http.get(
        f"/v1/analyses/{analysis_id}/result?format=dicom", headers={"Accept": "application/dicom"}
    )
    assert content.status_code == 200, content.text
    with orthanc.client() as archive:
        kinds = {
            each["0020000E"]["Value"][0]: each["00080060"]["Value"][0] for each in archive.search_for_series(STUDY)
        }
        ours = [uid for uid, kind in kinds.items() if kind != "SM" and uid.encode() in content.content]
        found = [instance for uid in ours for instance in archive.retrieve_series(STUDY, uid)]
    found.sort(key=lambda each: each.InstanceNumber)
    return {kind: [each for each in found if each.Modality == kind] for kind in ("SR", "ANN", "OT", "SEG")}


def test_the_archives_slide_is_the_folders_slide(server: Running, orthanc: Orthanc, slide: Path) -> None:
    uris = (slide, f"{orthanc.url}/{SERIES_PATH}", f"dicomweb://{SERIES_PATH}")
    of_folder, of_series, of_short = (server.report(analyzed(server, uri)) for uri in uris)
    assert len(of_folder["detections"]) > 3
    assert of_series["detections"] == of_folder["detections"] == of_short["detections"]
    assert of_series["mai"] == of_folder["mai"]
    assert of_series["slide"] == of_folder["slide"] | {"name": CONTAINER}  # the checksum included


def test_the_slide_of_others_too(server: Running, orthanc: Orthanc, shared: Path) -> None:
    folder = (shared / "data/slides/dicom-boxes").resolve()
    orthanc.take(folder)
    instance = dcmread(min(folder.iterdir()))
    uri = f"{orthanc.url}/studies/{instance.StudyInstanceUID}/series/{instance.SeriesInstanceUID}"
    answers = [server.http.post("/v1/analyses", json={"uri": each}).json() for each in (str(folder), uri)]
    ended = [server.wait(answer["id"]) for answer in answers]
    assert ended[0]["status"] == ended[1]["status"]
    if ended[0]["status"] == "succeeded":
        reports = [server.report(answer["id"]) for answer in answers]
        assert reports[0]["detections"] == reports[1]["detections"]
        assert reports[0]["slide"]["sha256"] == reports[1]["slide"]["sha256"]
    else:
        assert ended[0]["error"]["code"] == ended[1]["error"]["code"]


def test_each_version_is_stored_beside_the_slide(
    server: Running, orthanc: Orthanc, slide: Path, tmp_path: Path
) -> None:
    analysis_id = analyzed(server, f"dicomweb://{SERIES_PATH}", order=ORDER.model_dump(exclude_none=True))
    server.wait_until(lambda: len(objects_about(orthanc, server, analysis_id)["ANN"]) == 1)
    body = {"reviewer": "Weiß, Käthe", "changes": [{"action": "reject", "id": 1}]}
    url = f"/v1/analyses/{analysis_id}"
    assert server.http.patch(f"{url}/detections", json=body, headers={"If-Match": '"0"'}).status_code == 200
    signed = server.http.post(f"{url}/signature", json={"reviewer": "Weiß, Käthe"}, headers={"If-Match": '"1"'})
    assert signed.status_code == 200, signed.text
    server.wait_until(lambda: len(objects_about(orthanc, server, analysis_id)["ANN"]) == 2)
    found, report = objects_about(orthanc, server, analysis_id), server.http.get(f"{url}/result").json()
    first, second = (hd.ann.MicroscopyBulkSimpleAnnotations.from_dataset(each) for each in found["ANN"])
    assert first.AnnotationGroupSequence[0].NumberOfAnnotations == len(report["detections"])
    assert second.AnnotationGroupSequence[0].NumberOfAnnotations == len(report["detections"]) - 1
    assert first.ReferencedImageSequence[0].ReferencedSOPInstanceUID == BASE
    preliminary, final = (hd.sr.Comprehensive3DSR.from_dataset(each) for each in found["SR"])
    assert (preliminary.PreliminaryFlag, final.PreliminaryFlag) == ("PRELIMINARY", "FINAL")
    replaced = final.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert [each.ReferencedSOPInstanceUID for each in replaced] == [preliminary.SOPInstanceUID]
    assert final.AccessionNumber == "B26-00017"
    [probabilities], [area] = found["OT"], found["SEG"]  # no review changes them
    values = hd.Image.from_dataset(probabilities).get_total_pixel_matrix()
    to_pixel = hd.spatial.ReferenceToPixelTransformer.for_image(probabilities, for_total_pixel_matrix=True)
    places = np.concatenate(first.AnnotationGroupSequence[0].get_graphic_data("3D"))
    assert len(places) == len(report["detections"])
    for column, row, _ in to_pixel(places).tolist():
        assert values[row - 1 : row + 2, column - 1 : column + 2].max() >= report["model"]["threshold"]
    covered = hd.seg.Segmentation.from_dataset(area).get_total_pixel_matrix(segment_numbers=[1])
    spacing_mm = area.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    assert covered.sum() * float(np.prod(spacing_mm)) == pytest.approx(report["tissue"]["examined_mm2"], rel=0.05)
    for number, each in enumerate((*found["SR"], *found["ANN"], probabilities, area)):
        file = tmp_path / f"{number}.dcm"
        each.save_as(file, enforce_file_format=True)
        assert errors_in(file.read_bytes(), tmp_path) == []


def test_an_archive_that_is_down_gets_it_later_and_says_so(server: Running, orthanc: Orthanc, slide: Path) -> None:
    orthanc.__exit__()
    analysis_id = analyzed(server, slide)
    refused = server.http.post("/v1/analyses", json={"uri": f"dicomweb://{SERIES_PATH}"})
    assert (refused.status_code, refused.json()["code"]) == (503, "uri-unavailable")
    assert int(refused.headers["retry-after"]) > 0
    server.wait_until(lambda: "result waits" in server.told())
    orthanc.__enter__()
    server.wait_until(lambda: len(objects_about(orthanc, server, analysis_id)["SR"]) == 1, 90)


def test_a_slide_of_the_archive_that_is_not_below_a_root_is_refused(server: Running, orthanc: Orthanc) -> None:
    answer = server.http.post("/v1/analyses", json={"uri": f"{orthanc.root}/other/{SERIES_PATH}"})
    assert (answer.status_code, answer.json()["code"]) == (422, "uri-forbidden")
    assert subprocess.run(["grep", "-c", "s3cret", server.log], capture_output=True).stdout == b"0\n"
