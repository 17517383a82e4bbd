"""One table from errors to statuses; problem details that tell a client all that is its business, and nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx import Client, Response
from starlette.exceptions import HTTPException
from structlog.testing import capture_logs

from service.api.errors import MEDIA_TYPE, NOT_IN_REQUESTS, STATUSES, extended, problem_response, problems, status_of
from service.errors import (
    BadInput,
    Failure,
    InternalError,
    MitosisError,
    NotASlide,
    Refusal,
    SlideDamaged,
    WeightsDamaged,
)
from service.refusals import KeyRequired, NotFound, QueueUnavailable
from tests.api.small_app import client_of, small_app
from tests.test_errors import all_errors

LEAVES = [each for each in all_errors() if not each.__subclasses__()]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with client_of(small_app(tmp_path_factory.mktemp("app"))) as client:
        yield client


def assert_problem(response: Response, status: int, code: str) -> dict[str, object]:
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code), problem
    assert response.headers["content-type"] == MEDIA_TYPE
    assert problem["type"] == f"urn:mitosis:{code}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == response.headers["x-request-id"]
    assert isinstance(problem, dict)
    return problem


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: error.__name__)
def test_each_error_has_one_place(error: type[MitosisError]) -> None:
    assert (error in STATUSES) != (error in NOT_IN_REQUESTS)


def test_the_table_says_whose_fault_it_is() -> None:
    for error, status in STATUSES.items():
        branch = next(each for each in (BadInput, Refusal, Failure) if issubclass(error, each))
        if branch is BadInput:
            assert status == 422
        elif branch is Failure:
            assert status in (500, 507)
        else:
            assert 400 <= status < 500 or status == 503


def test_a_new_error_is_a_fault_until_it_has_a_place() -> None:
    assert status_of(type("Unheard", (Refusal,), {}, code="unheard")) == 500
    assert status_of(type("Kind", (NotASlide,), {}, code="kind")) == 422


def test_an_error_of_a_route_is_told_in_full(client: Client) -> None:
    problem = assert_problem(client.get("/v1/things/404"), 404, "not-found")
    assert problem["detail"] == "there is no thing 404"
    assert problem["title"] == (NotFound.__doc__ or "").splitlines()[0]


def test_an_error_carries_its_own_members(client: Client) -> None:
    assert assert_problem(client.get("/v1/broken/mpp"), 422, "mpp-unknown")["slide_id"] == "abc"


@pytest.mark.parametrize(("how", "cause"), [("weights", WeightsDamaged), ("bug", LookupError)])
def test_a_fault_of_ours_is_told_to_the_log_only(client: Client, how: str, cause: type[Exception]) -> None:
    with capture_logs() as logs:
        response = client.get(f"/v1/broken/{how}")
    assert_problem(response, 500, "internal-error")
    assert "secret" not in response.text
    assert cause.__name__ not in response.text
    (logged,) = (line["exc_info"] for line in logs if line["event"] == "request failed")
    assert cause in (type(logged), type(logged.__cause__))


def test_a_databases_own_words_are_told_to_the_log_only(client: Client) -> None:
    with capture_logs() as logs:
        response = client.get("/v1/broken/database")
    assert_problem(response, 503, "database-unavailable")
    assert "secret" not in response.text
    assert [str(line["reason"]) for line in logs if line["event"] == "database unavailable"] == [
        "it does not answer (connection to secret-host as secret-user)"
    ]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not-found"),
        ("GET", "/", 404, "not-found"),
        ("GET", "/docs/files/../small_app.py", 404, "not-found"),
        ("GET", "/docs/files/%2e%2e/%2e%2e/%2e%2e/__init__.py", 404, "not-found"),
        ("PUT", "/v1/things/1", 405, "method-not-allowed"),
    ],
)
def test_routes_that_do_not_exist(client: Client, method: str, path: str, status: int, code: str) -> None:
    response = client.request(method, path)
    assert_problem(response, status, code)
    assert (response.headers.get("allow") is not None) == (status == 405)


@pytest.mark.parametrize(
    "path", ["/v1/things/x", "/v1/things/1.5", "/v1/things/%ff", "/v1/things/1?limit=11", f"/v1/things/{'9' * 5000}"]
)
def test_a_request_beside_the_description(client: Client, path: str) -> None:
    problem = assert_problem(client.get(path), 422, "request-invalid")
    (error,) = problem["errors"]  # type: ignore[misc]
    assert error["loc"][0] in ("path", "query")
    assert set(error) == {"loc", "msg"}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{", id="no JSON"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"weight": NaN}', id="NaN"),
        pytest.param(b'{"weight": -Infinity}', id="Infinity"),
        pytest.param(b'{"weight": 1e999}', id="huge float"),
        pytest.param(b'{"weight": ' + b"9" * 400 + b"}", id="huge integer"),
        pytest.param(b'{"weight": ' + b"9" * 5000 + b"}", id="an integer that Python refuses"),
        pytest.param(b'{"weight": "\xff"}', id="no UTF-8"),
        pytest.param(b'\xff\xfe{"weight": 1}', id="no UTF-8 at all"),
        pytest.param(b"[" * 100_000, id="depth"),
        pytest.param(b'{"wight": 1}', id="unknown field"),
        pytest.param(b'{"\\ud800": 1}', id="half a surrogate pair"),
    ],
)
def test_bodies_that_are_no_request(client: Client, body: bytes) -> None:
    response = client.post("/v1/things", content=body, headers={"Content-Type": "application/json"})
    assert_problem(response, 422, "request-invalid")
    json.loads(response.content.decode("utf-8"))


def test_a_request_with_very_many_errors_has_a_short_answer(client: Client) -> None:
    response = client.post("/v1/things", json={f"{number}{'x' * 500}": 1 for number in range(1000)})
    problem = assert_problem(response, 422, "request-invalid")
    assert len(response.content) < 20_000
    assert len(problem["errors"]) == 20  # type: ignore[arg-type]


def test_clients_are_told_when_to_come_back() -> None:
    assert problem_response(QueueUnavailable("down"), {}).headers["retry-after"] == "5"
    assert problem_response(KeyRequired("none"), {}).headers["www-authenticate"].startswith("Bearer ")


def test_problems_survive_what_is_not_text() -> None:
    for path in ("/v1/slides", "/fhir/metadata"):
        told = problem_response(NotFound("a\ud800b\n\x00"), {"path": path}).body
        assert "a?b\n\x00" in (json.loads(told).get("detail") or json.loads(told)["issue"][0]["diagnostics"])
    with pytest.raises(ValueError, match="JSON"):
        problem_response(extended(NotFound("none"), number=float("nan")), {})


def test_other_http_exceptions_have_a_code_too(tmp_path: Path) -> None:
    app = small_app(tmp_path)

    @app.get("/teapot")
    def teapot() -> None:
        raise HTTPException(415, "no such thing", {"Accept": "text/plain"})

    with client_of(app) as client:
        response = client.get("/teapot")
    assert_problem(response, 415, "unsupported-media-type")
    assert response.headers["accept"] == "text/plain"


def test_the_description_has_an_example_of_each_error() -> None:
    entries = problems(NotASlide, SlideDamaged, NotFound, InternalError)
    assert list(entries) == [404, 422, 500]
    examples = entries[422]["content"][MEDIA_TYPE]["examples"]
    assert {name: example["value"]["code"] for name, example in examples.items()} == {
        "not-a-slide": "not-a-slide",
        "slide-damaged": "slide-damaged",
    }
