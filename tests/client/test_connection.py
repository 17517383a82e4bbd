"""One connection to a service: problem details become errors, what passes is tried again."""

import socket
import time
from pathlib import Path

import pytest

from service import errors, refusals
from service.client.client import CHUNK_BYTES, Client
from service.client.connection import BY_CODE, error_of
from service.errors import (
    BadInput,
    Failure,
    MitosisError,
    ParameterInvalid,
    Refusal,
    RequestInvalid,
    ResolutionUnknown,
)
from service.refusals import QueueUnavailable, ServerUnreachable
from tests.client.saying import answer, problem, saying


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_every_code_is_its_class_again(code: str) -> None:
    error = error_of(code, "what to do")
    assert (type(error), error.code, str(error)) == (BY_CODE[code], code, "what to do")


def test_all_classes_have_their_code_there() -> None:
    known = vars(errors) | vars(refusals)
    names = {name for name, each in known.items() if isinstance(each, type) and issubclass(each, MitosisError)}
    assert {each.__name__ for each in BY_CODE.values()} == names - {"MitosisError"}


def test_a_problem_is_raised_as_its_class_with_all_members() -> None:
    with (
        saying(problem(422, "mpp-unknown", slide_id="s-1", instance="r-1", code_="x")) as (url, _),
        Client(url) as client,
        pytest.raises(ResolutionUnknown, match="what to do") as raised,
    ):
        client.submit("s-1")
    assert vars(raised.value) == {"slide_id": "s-1", "instance": "r-1", "code_": "x"}


def test_a_refused_request_says_where() -> None:
    where = [{"loc": ["region", "x"], "msg": "too small"}]
    with (
        saying(problem(422, "request-invalid", errors=where)) as (url, _),
        Client(url) as client,
        pytest.raises(RequestInvalid) as raised,
    ):
        client.submit("s-1")
    assert vars(raised.value)["errors"] == where


@pytest.mark.parametrize(("status", "kind"), [(422, BadInput), (409, Refusal), (500, Failure)])
def test_a_code_of_a_newer_service_is_kept(status: int, kind: type[MitosisError]) -> None:
    with (
        saying(problem(status, "brand-new", args="not ours")) as (url, _),
        Client(url) as client,
        pytest.raises(kind, match="what to do") as raised,
    ):
        client.get("a")
    assert type(raised.value) is kind
    assert raised.value.code == "brand-new"
    assert raised.value.args == ("what to do",), "no member replaces what an error has"


def test_what_is_no_problem_is_told_by_its_status() -> None:
    with (
        saying(answer(404, b"<html>", "text/html")) as (url, _),
        Client(url) as client,
        pytest.raises(Refusal) as raised,
    ):
        client.get("a")
    assert raised.value.code == "http-404"
    assert f"{url}/v1/analyses/a answered 404 Said" in str(raised.value)


@pytest.mark.parametrize("content", [b"<html>welcome", {"id": "a"}, [1]])
def test_another_service_at_that_address_is_none(content: object) -> None:
    with (
        saying(answer(200, content)) as (url, _),
        Client(url) as client,
        pytest.raises(ServerUnreachable, match="does not answer as this service"),
    ):
        client.get("a")


def test_a_server_that_is_not_there_is_given_up_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    started = time.monotonic()
    with Client(f"http://127.0.0.1:{port}", patience_s=1) as client, pytest.raises(ServerUnreachable) as raised:
        client.get("a")
    assert time.monotonic() - started >= 1
    assert f"http://127.0.0.1:{port} cannot be reached" in str(raised.value)


def test_a_server_that_never_answers_is_given_up() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Client(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.3, patience_s=0.2) as client,
        pytest.raises(ServerUnreachable),
    ):
        client.get("a")


def test_a_server_that_stops_taking_bytes_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "slide.svs").write_bytes(bytes(CHUNK_BYTES - 1))
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Client(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.3, patience_s=0.2) as client,
        pytest.raises(ServerUnreachable, match="timed out"),
    ):
        client.upload(tmp_path / "slide.svs")


def test_what_does_not_pass_is_raised_at_last() -> None:
    trouble = problem(503, "queue-unavailable", retry_after_s=0)
    with (
        saying(trouble, trouble) as (url, _),
        Client(url, patience_s=0.05) as client,
        pytest.raises(QueueUnavailable),
    ):
        client.submit("s")


@pytest.mark.parametrize("server", ["", "127.0.0.1:8000", "ftp://a", "http://", "http://a:b", "http://[::1"])
def test_an_address_that_is_none_is_refused(server: str) -> None:
    with pytest.raises(ParameterInvalid, match="no address"):
        Client(server)


@pytest.mark.parametrize("key", ["mk_a\r\nX: y", "mk_ä", "two words", "\0"])
def test_a_key_that_cannot_be_one_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(ParameterInvalid) as raised:
        Client("http://127.0.0.1", key=key)
    assert key not in str(raised.value)
