"""What the viewer knows beforehand is what the service says: its modules as the browser has them, against the API."""

import inspect
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import pytest

from service import errors, refusals, render
from service.api import formats, uploads
from service.patient_gate import Conflict
from service.store.records import LIVE
from tests.web.conftest import Service

Exports = Callable[[str], dict[str, Any]]


@pytest.fixture
def exports(open_page: Any) -> Exports:
    """`exports(module)`: what a module of the viewer exports, functions left out."""
    page = open_page()

    def of(module: str) -> dict[str, Any]:
        found: dict[str, Any] = page.evaluate(
            "async module => JSON.parse(JSON.stringify({ ...(await import(`/viewer/${module}.js`)) }))", module
        )
        return found

    return of


@pytest.fixture
def api(service: Service) -> dict[str, Any]:
    """The API's own description."""
    document: dict[str, Any] = service.running.http.get("/openapi.json").json()
    return document


def properties(api: dict[str, Any], schema: str) -> dict[str, Any]:
    found: dict[str, Any] = api["components"]["schemas"][schema]["properties"]
    return found


def parameter(api: dict[str, Any], path: str, name: str) -> dict[str, Any]:
    (found,) = (each["schema"] for each in api["paths"][path]["get"]["parameters"] if each["name"] == name)
    return found["anyOf"][0] if "anyOf" in found else found


def test_it_names_every_status_action_and_format(exports: Exports, api: dict[str, Any]) -> None:
    contract = exports("contract")
    assert set(contract["STATUS_WORDS"]) == set(properties(api, "AnalysisStatus")["status"]["enum"])
    assert set(contract["UNFINISHED"]) == set(LIVE)
    assert set(contract["SIGNED_WORDS"]) == set(properties(api, "Summary")["status"]["enum"])
    assert set(contract["ACTION_WORDS"]) == set(properties(api, "ReviewEntry")["action"]["enum"])
    assert set(contract["DECISIONS"]) == set(properties(api, "Decision")["action"]["enum"])
    decisions = properties(api, "ReviewedDetection")["decision"]["anyOf"][0]["enum"]
    assert sorted(filter(None, contract["DECISIONS"].values())) == sorted(decisions)
    assert tuple(contract["FORMATS"]) == formats.FORMATS
    reasons = properties(api, "Layers")["unexamined"]["anyOf"][0]["propertyNames"]["enum"]
    assert set(contract["HINDRANCE_WORDS"]) == set(reasons)
    assert contract["TUS_VERSION"] == uploads.VERSION
    assert set(contract["HOLD_WORDS"]) == set(get_args(get_type_hints(Conflict)["code"]))


def test_it_keeps_to_the_limits_of_requests(exports: Exports, api: dict[str, Any]) -> None:
    contract, changes = exports("contract"), properties(api, "Changes")
    assert contract["TEXT_LENGTH"] == changes["reviewer"]["maxLength"]
    assert contract["REASON_LENGTH"] == properties(api, "Release")["reason"]["maxLength"]
    assert contract["CHANGES_PER_REQUEST"] <= changes["changes"]["maxItems"]
    assert contract["ROWS_PER_PAGE"] <= parameter(api, "/v1/analyses", "limit")["maximum"]
    lowest = parameter(api, "/v1/analyses/{analysis_id}/detections", "candidates_from")["minimum"]
    assert exports("review")["LOWEST_CANDIDATE"] >= lowest
    assert contract["CROP_UM"] == render.CROP_UM


def test_its_advice_is_about_errors_that_there_are(exports: Exports) -> None:
    kinds = [each for module in (errors, refusals) for _, each in inspect.getmembers(module, inspect.isclass)]
    codes = {each.code for each in kinds if hasattr(each, "code")}
    assert set(exports("problems")["ADVICE"]) <= codes


def test_it_shows_the_services_words_for_every_count(service: Service, shown: Any, analysis: Any) -> None:
    page, _ = shown(analysis)
    page.get_by_role("tab", name="Result").click()
    known = service.running.http.get("/v1/definitions").json()
    report = service.running.http.get(f"/v1/analyses/{analysis['id']}/result").json()
    words = {(each["id"], each["table_version"]): each for each in known["definitions"]}
    panel = page.locator("#panel-1")
    panel.get_by_text(known["definitions"][-1]["summary"]).wait_for()
    rows = panel.locator("table tbody").all_inner_texts()
    for row, score in zip(rows, report["scores"], strict=True):
        definition = words[score["definition"], score["table_version"]]
        assert row.startswith(definition["title"])
        assert definition["summary"] in row
    mai, text = report["mai"], panel.inner_text()
    classes = words[mai["definition"], mai["table_version"]]["classes"]
    said = "too little tissue for a class" if mai["high_risk"] is None else classes[mai["high_risk"]]
    assert f"{mai['tissue_mm2']:.2f} mm² of it examined tissue: {said}" in text
    assert f"{100 * known['confidence']:g} % interval" in text
