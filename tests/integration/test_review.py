"""A review on a running service: two people at once, signing, what the result says then, and who is allowed to."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from service.commit import source_commit
from service.model_card import DEFAULT_MODEL, add_to_card, find_model
from service.order import Confirmation, ResultStatus
from service.readings import signed_report
from service.report import Report
from service.review import Entry
from service.sample import draw_sample_slide
from service.store.analyses import Analyses
from service.store.audit import entries, verify
from service.store.database import analyses, open_database, writing
from service.store.results import Result
from service.store.reviews import Reviews
from service.store.settings import load_settings
from service.store.storage import Storage
from tests.integration.running import Running

SIDE = 1500  # px of the slide
SAME = "The same: slide, model, parameters, detections and counts."
Reply = httpx.Response


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service of its own: the last test makes keys on it."""
    running = Running(tmp_path_factory.mktemp("reviewed"), lease_s="3", requests_per_minute="1000000").start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_sample_slide(tmp_path_factory.mktemp("slide") / "sample.tif", width=SIDE, height=SIDE).path


@pytest.fixture(scope="module")
def analysis_id(server: Running, slide: Path) -> str:
    """One analysis for all tests that leave no trace in another's way."""
    return analyzed(server, slide)


def analyzed(server: Running, slide: Path, **request: Any) -> str:
    found = server.submit(slide, **request)
    assert server.wait(found)["status"] == "succeeded", server.told()
    return found


def look(server: Running, analysis_id: str, **query: Any) -> dict[str, Any]:
    answer = server.http.get(f"/v1/analyses/{analysis_id}/detections", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["etag"] == f'"{found["revision"]}"'
    return found


def change(
    server: Running, analysis_id: str, revision: Any, *changes: dict[str, Any], name: str = "Weiß, Käthe"
) -> Reply:
    headers = {} if revision is None else {"If-Match": f'"{revision}"'}
    body = {"reviewer": name, "changes": changes}
    return server.http.patch(f"/v1/analyses/{analysis_id}/detections", json=body, headers=headers)


def sign(server: Running, analysis_id: str, revision: int, **body: str) -> Reply:
    body = {"reviewer": "Weiß, Käthe", **body}
    headers = {"If-Match": f'"{revision}"'}
    return server.http.post(f"/v1/analyses/{analysis_id}/signature", json=body, headers=headers)


def result(server: Running, analysis_id: str, **query: str) -> Any:
    answer = server.http.get(f"/v1/analyses/{analysis_id}/result", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json() if "format" not in query else answer.text


def reject(number: int) -> dict[str, Any]:
    return {"action": "reject", "id": number}


def test_before_anybody_decides_it_is_the_machines(server: Running, analysis_id: str) -> None:
    report, found = result(server, analysis_id), look(server, analysis_id)
    assert "review" not in report
    assert (report["software"]["commit"] is None) == (source_commit() is None)
    assert (found["revision"], found["status"], found["signed"]) == (0, "preliminary", None)
    assert found["threshold"] == report["model"]["threshold"]
    assert {name: found[name] for name in ("counts", "mai", "scores")} == {
        name: report[name] for name in ("counts", "mai", "scores")
    }
    for each, detection in zip(found["detections"], report["detections"], strict=True):
        assert each.items() >= detection.items()
        assert (each["origin"], each["decision"], each["reviewer"]) == ("machine", None, None)
    assert "candidates" not in found
    assert server.http.get(f"/v1/analyses/{analysis_id}/review").json() == {"entries": []}


def test_candidates_are_below_the_threshold_and_no_detections(server: Running, analysis_id: str) -> None:
    found = look(server, analysis_id, candidates_from=0.1)
    assert found["candidates"]
    assert all(0.1 <= each["score"] < found["threshold"] for each in found["candidates"])
    assert found["detections"] == look(server, analysis_id)["detections"]
    assert look(server, analysis_id, candidates_from=0.99)["candidates"] == []
    for wrong in ("0", "1", "-1", "nan", "x"):
        answer = server.http.get(f"/v1/analyses/{analysis_id}/detections", params={"candidates_from": wrong})
        assert (answer.status_code, answer.json()["code"]) == (422, "request-invalid")


def test_a_review_from_the_first_decision_to_an_amended_result(server: Running, analysis_id: str) -> None:
    analysis_id = server.again(analysis_id)
    machine = look(server, analysis_id)
    total = machine["counts"]["total"]
    [candidate, *_] = look(server, analysis_id, candidates_from=0.1)["candidates"]
    addition = {"action": "add", "x": candidate["x"], "y": candidate["y"], "reason": "prophase"}
    answer = change(server, analysis_id, 0, reject(1) | {"reason": "Apoptose"}, reject(2), addition)
    assert (answer.status_code, answer.headers["etag"]) == (200, '"3"'), answer.text
    found = answer.json()
    assert found == look(server, analysis_id)
    assert found["counts"]["total"] == total - 1
    added = found["detections"][-1]
    assert (added["id"], added["origin"], added["decision"], added["score"]) == (total + 1, "person", "accepted", None)
    assert (added["x"], added["y"], added["reason"]) == (candidate["x"], candidate["y"], "prophase")
    assert candidate["id"] not in [
        each["id"]
        for each in look(server, analysis_id, candidates_from=0.1)["candidates"]
        if (each["x"], each["y"]) == (candidate["x"], candidate["y"])
    ]

    report = result(server, analysis_id)
    assert report["counts"]["total"] == total  # the machine's, for ever
    assert report["review"]["counts"]["total"] == total - 1
    assert report["review"]["status"] == "preliminary"
    assert len(json.loads(result(server, analysis_id, format="geojson"))["features"]) > total  # nobody has signed

    signed = sign(server, analysis_id, 3, organization="Institut für Pathologie").json()
    assert (signed["status"], signed["revision"], signed["signed"]["revision"]) == ("final", 4, 4)
    assert signed["signed"]["organization"] == "Institut für Pathologie"
    rows = result(server, analysis_id, format="csv").splitlines()
    assert len(rows) == total
    assert rows[-1].endswith(",,")  # the added one

    changed = change(server, analysis_id, 4, {"action": "clear", "id": 1}).json()
    assert (changed["status"], changed["signed"]["revision"], changed["counts"]["total"]) == ("final", 4, total)
    assert result(server, analysis_id, format="csv").splitlines() == rows  # still what was signed
    version, status, confirmed, revision = signed_version(server, analysis_id)
    assert (version.counts.total, status, confirmed and confirmed.name, revision) == (
        total - 1,
        "final",
        "Weiß, Käthe",
        4,
    )
    assert sign(server, analysis_id, 5).json()["status"] == "amended"
    assert len(result(server, analysis_id, format="csv").splitlines()) == total + 1
    version, status, _, revision = signed_version(server, analysis_id)
    assert (version.counts.total, status, revision) == (total, "amended", 6)
    log = server.http.get(f"/v1/analyses/{analysis_id}/review").json()["entries"]
    assert [(each["revision"], each["action"], each["id"]) for each in log] == [
        (1, "reject", 1),
        (2, "reject", 2),
        (3, "add", total + 1),
        (4, "sign", None),
        (5, "clear", 1),
        (6, "sign", None),
    ]
    assert Report.model_validate(result(server, analysis_id)).review is not None


def stored(server: Running, analysis_id: str) -> tuple[Result, list[Entry]]:
    engine = open_database(load_settings(data_dir=server.data_dir).database, migrate=False)
    try:
        result = Result.of(engine, Storage(server.data_dir), Analyses(engine).get(analysis_id, "default"))
        return result, Reviews(engine).entries(analysis_id)
    finally:
        engine.dispose()


def signed_version(server: Running, analysis_id: str) -> tuple[Report, ResultStatus, Confirmation | None, int]:
    result, entries = stored(server, analysis_id)
    assert result.glass().examinable.mask.any()
    return signed_report(result.report(), entries)


def test_of_two_reviewers_the_second_is_told(server: Running, analysis_id: str) -> None:
    analysis_id = server.again(analysis_id)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda name: change(server, analysis_id, 0, reject(1), name=name), ["A, A", "B, B"]))
    first, second = sorted(answers, key=lambda answer: answer.status_code)
    assert (first.status_code, second.status_code) == (200, 412)
    problem = second.json()
    assert (problem["code"], problem["revision"]) == ("revision-conflict", 1)
    found = look(server, analysis_id)
    assert found["revision"] == problem["revision"]
    assert change(server, analysis_id, found["revision"], reject(2), name="B, B").status_code == 200


def test_a_signature_is_of_what_was_seen(server: Running, analysis_id: str) -> None:
    analysis_id = server.again(analysis_id)
    assert change(server, analysis_id, 0, reject(1)).status_code == 200
    assert sign(server, analysis_id, 0).status_code == 412
    assert look(server, analysis_id)["status"] == "preliminary"


def test_everything_rejected_is_a_result_of_none(server: Running, analysis_id: str) -> None:
    analysis_id = server.again(analysis_id)
    numbers = [each["id"] for each in look(server, analysis_id)["detections"]]
    found = change(server, analysis_id, 0, *(reject(number) for number in numbers)).json()
    assert (found["counts"]["total"], found["mai"]["count"], found["mai"]["hotspot"]) == (0, 0, None)
    assert {score["count"] for score in found["scores"]} == {0}
    assert sign(server, analysis_id, len(numbers)).status_code == 200
    assert result(server, analysis_id, format="csv").splitlines() == ["id,x,y,x_um,y_um,score,area_um2"]


@pytest.mark.parametrize(
    ("revision", "changes", "status", "code"),
    [
        (None, [reject(1)], 428, "precondition-required"),
        ("x", [reject(1)], 412, "revision-conflict"),
        (9, [reject(1)], 412, "revision-conflict"),
        ("0", [], 422, "request-invalid"),
        (0, [reject(999)], 422, "parameter-invalid"),
        (0, [{"action": "add", "x": SIDE + 1, "y": 1}], 422, "parameter-invalid"),
        (0, [{"action": "add", "x": -1, "y": 1}], 422, "request-invalid"),
        (0, [{"action": "add", "id": 1}], 422, "request-invalid"),
        (0, [{"action": "sign"}], 422, "request-invalid"),
        (0, [reject(1), reject(999)], 422, "parameter-invalid"),
        (0, [reject(1) | {"reason": ""}], 422, "request-invalid"),
        (0, [reject(1) | {"reason": "\x00"}], 422, "request-invalid"),
        (0, [reject(1)] * 1001, 422, "request-invalid"),
    ],
)
def test_what_cannot_be_changed_is_refused(
    server: Running, analysis_id: str, revision: Any, changes: list[Any], status: int, code: str
) -> None:
    answer = change(server, analysis_id, revision, *changes)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert look(server, analysis_id)["revision"] == 0


@pytest.mark.parametrize("value", ["*", '"0', "0", 'W/"0"', '"0", "1"', '"00"'])
def test_only_a_revision_matches(server: Running, analysis_id: str, value: str) -> None:
    answer = server.http.post(
        f"/v1/analyses/{analysis_id}/signature",
        json={"reviewer": "\n"},  # so that nothing is signed
        headers={"If-Match": value.encode()},
    )
    assert answer.status_code == 422
    body = {"reviewer": "A", "changes": [reject(999)]}
    answer = server.http.patch(
        f"/v1/analyses/{analysis_id}/detections", json=body, headers={"If-Match": value.encode()}
    )
    assert answer.status_code == (422 if value in ('"0', "0", '"00"') else 412)  # else as if it were 0: 999 is none


def test_what_is_not_there_cannot_be_reviewed(server: Running, slide: Path) -> None:
    unknown = "00000000-0000-0000-0000-000000000000"
    for answer in (
        server.http.get(f"/v1/analyses/{unknown}/detections"),
        server.http.get(f"/v1/analyses/{unknown}/review"),
        change(server, unknown, 0, reject(1)),
        sign(server, unknown, 0),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    failed = server.submit(slide, parts=1)
    server.http.delete(f"/v1/analyses/{failed}")
    if server.wait(failed)["status"] == "cancelled":
        assert change(server, failed, 0, reject(1)).json()["code"] == "not-finished"


def command(server: Running, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", *words, "--data-dir", str(server.data_dir)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_an_analysis_is_verified(server: Running, slide: Path, tmp_path: Path) -> None:
    region = {"x": 300, "y": 200, "width": 900, "height": 1100}
    analysis_id = analyzed(server, slide, region=region, threshold=0.6, halo_px=16, mpp=0.26)
    change(server, analysis_id, 0, reject(1))  # nothing to the machine's result
    told = command(server, "verify", analysis_id)
    assert (told.returncode, told.stdout.splitlines()[-1:]) == (0, [SAME]), told
    assert command(server, "verify", "none").returncode == 1

    path = stored(server, analysis_id)[0].path("report")
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"total": ', b'"total": 1', 1))
    told = command(server, "verify", analysis_id)
    assert told.returncode == 1
    assert told.stdout.startswith("report: ")
    assert command(server, "verify", "--stored").returncode == 1
    path.write_bytes(content)
    assert command(server, "verify", "--stored").returncode == 0

    sha256 = result(server, analysis_id)["slide"]["sha256"]
    [file] = Storage(server.data_dir).slide_folder(sha256).iterdir()
    pixels = file.read_bytes()
    file.write_bytes(pixels + b"\0")  # still the same picture
    told = command(server, "verify", analysis_id)
    assert (told.returncode, told.stdout.split(":")[0]) == (1, "slide")
    file.write_bytes(pixels)
    assert command(server, "verify", analysis_id).returncode == 0

    changed = Path(shutil.copytree(find_model(DEFAULT_MODEL), tmp_path / "model"))
    add_to_card(changed, offset_px=[0.0, 0.0])
    engine = open_database(load_settings(data_dir=server.data_dir).database, migrate=False)
    with writing(engine) as connection:
        connection.execute(update(analyses).where(analyses.c.id == analysis_id).values(model=str(changed)))
    told = command(server, "verify", analysis_id)
    assert (told.returncode, told.stdout.split(":")[0]) == (1, "model")
    assert "a card that scores otherwise" in told.stdout


def test_an_analysis_of_a_region_that_was_cut_is_verified(server: Running, slide: Path) -> None:
    """The warning belongs to the region that was asked for: the report's own is cut already."""
    corners = [[300, 200], [SIDE + 300, 200], [300, 1300], [300, 200]]
    analysis_id = analyzed(server, slide, region={"type": "Polygon", "coordinates": [corners]})
    assert "region-cut" in [each["code"] for each in result(server, analysis_id)["warnings"]]
    told = command(server, "verify", analysis_id)
    assert (told.returncode, told.stdout.splitlines()[-1:]) == (0, [SAME]), told


def test_every_look_and_every_change_is_in_the_audit_log(server: Running, slide: Path) -> None:
    analysis_id = analyzed(server, slide)
    look(server, analysis_id)
    result(server, analysis_id, format="csv")
    change(server, analysis_id, 0, reject(1))
    change(server, analysis_id, 0, reject(1))
    sign(server, analysis_id, 1)
    server.http.get(f"/v1/analyses/{analysis_id}/overlay.png")
    server.http.delete(f"/v1/analyses/{analysis_id}")
    engine = open_database(load_settings(data_dir=server.data_dir).database, migrate=False)
    mine = [entry for entry in entries(engine) if entry.object == analysis_id]
    assert [(entry.action, entry.detail.get("status", entry.detail.get("revision"))) for entry in mine] == [
        ("submit", 202),
        ("get_detections", 200),
        ("get_result", 200),
        ("change_detections", 1),
        ("change_detections", 412),
        ("sign", 2),
        ("get_overlay", 200),
        ("delete", 204),
    ]
    assert mine[2].detail["answer"] == "text/csv"
    assert verify(entries(engine))[0] > 20
    engine.dispose()
    assert command(server, "audit", "verify").returncode == 0


def test_reviewing_needs_its_scope(server: Running, analysis_id: str) -> None:
    """The last test: with the first key, the service asks for one."""
    secrets = {
        scopes: command(server, "keys", "create", "reviewer", "--scopes", scopes).stdout.strip()
        for scopes in ("read,submit", "read,review")
    }
    url, body = f"/v1/analyses/{analysis_id}/detections", {"reviewer": "A, B", "changes": [reject(1)]}
    statuses = {}
    for scopes, secret in secrets.items():
        headers = {"Authorization": f"Bearer {secret}", "If-Match": '"0"'}
        statuses[scopes] = (
            server.http.get(url, headers=headers).status_code,
            server.http.patch(url, headers=headers, json=body).status_code,
        )
    assert statuses == {"read,submit": (200, 403), "read,review": (200, 200)}
    assert server.http.get(url).status_code == 401
    engine = open_database(load_settings(data_dir=server.data_dir).database, migrate=False)
    created, _, allowed, refused, asked, decided = list(entries(engine))[-6:]
    assert (created.action, created.detail["scopes"]) == ("create_key", ["read", "submit"])
    assert [entry.detail.get("status") for entry in (allowed, refused, asked)] == [200, 403, 200]
    assert allowed.actor == refused.actor == created.object
    assert decided.actor == asked.actor
    assert decided.detail["reviewer"] == "A, B"
    engine.dispose()
