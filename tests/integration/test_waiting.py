"""A POST that waits: the report is its answer where the analysis is over in time."""

import json
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from service.report import Report
from tests.conftest import FIELD_MPP
from tests.integration.running import Running


def post(server: Running, image: Path, params: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
    asked = {"request": json.dumps({"mpp": FIELD_MPP, "priority": "stat"})}
    with image.open("rb") as content:
        files = {"file": (image.name, content)}
        return server.http.post("/v1/analyses", data=asked, files=files, params=params, headers=headers)


def test_the_answer_is_the_report_or_where_the_analysis_stands(server: Running, mitoses_image: Path) -> None:
    waited = post(server, mitoses_image, {"wait": 30}, **{"Idempotency-Key": "waited"})
    assert waited.status_code == 200
    report = Report.model_validate_json(waited.content)
    assert waited.headers["location"] == f"/v1/analyses/{report.analysis.id}"
    assert waited.headers["preference-applied"] == "wait=30"
    assert waited.content == server.http.get(f"{waited.headers['location']}/result").content

    again = post(server, mitoses_image, Prefer="wait=30", **{"Idempotency-Key": "waited"})
    assert again.content == waited.content
    known = post(server, mitoses_image, **{"Idempotency-Key": "waited"})
    assert (known.status_code, known.json()["status"]) == (200, "succeeded"), "nobody asked to wait"

    at_once = post(server, mitoses_image)
    assert (at_once.status_code, at_once.json()["status"]) == (202, "queued")
    assert "preference-applied" not in at_once.headers


def test_what_fails_while_it_is_waited_for_says_why(server: Running, mitoses_image: Path, tmp_path: Path) -> None:
    blank = tmp_path / "dark.png"
    Image.new("RGB", (600, 600), (5, 5, 5)).save(blank)
    answer = post(server, blank, {"wait": 30})
    assert (answer.status_code, answer.json()["status"]) == (202, "failed")
    assert answer.json()["error"]["code"] == "stain-not-he"


def test_more_than_a_minute_is_refused(server: Running, mitoses_image: Path) -> None:
    answer = post(server, mitoses_image, {"wait": 61})
    assert (answer.status_code, answer.json()["code"]) == (422, "request-invalid")
