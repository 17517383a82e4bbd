"""A browser's session: a cookie that scripts cannot read, that other sites cannot use, and that ends with its key."""

from collections.abc import Iterator

import httpx
import pytest

from service.store import keys, sessions
from service.store.database import open_database
from tests.api.slide_app import Gateway, gateway

NOWHERE = "/v1/slides/00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("sessions") / "data") as found:
        yield found


@pytest.fixture
def http(running: Gateway) -> Iterator[httpx.Client]:
    with running.client() as client:
        yield client


def made(running: Gateway, *scopes: str) -> tuple[str, str]:
    engine = open_database(f"sqlite:///{running.data_dir / 'jobs.sqlite3'}", migrate=False)
    key = keys.create(engine, "Somebody", "lab", scopes or ("read", "submit"))
    engine.dispose()
    return key


def revoke(running: Gateway, key_id: str) -> None:
    engine = open_database(f"sqlite:///{running.data_dir / 'jobs.sqlite3'}", migrate=False)
    keys.revoke(engine, key_id)
    engine.dispose()


def test_without_keys_nobody_signs_in(http: httpx.Client) -> None:
    assert http.get("/v1/session").json() == {
        "tenant": "default",
        "scopes": ["admin", "read", "review", "submit"],
        "keys": False,
        "second_reading": "off",
    }
    assert http.post("/v1/session", json={"key": "mk_none"}).status_code == 401


def test_a_key_becomes_a_cookie_that_ends_with_it(running: Gateway, http: httpx.Client) -> None:
    key_id, secret = made(running)
    assert http.get("/v1/session").status_code == 401
    answer = http.post("/v1/session", json={"key": secret})
    cookie = answer.headers["set-cookie"].lower()
    assert answer.status_code == 204
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "expires" not in cookie
    assert secret.lower() not in cookie
    assert http.get("/v1/session").json() == {
        "tenant": "lab",
        "scopes": ["read", "submit"],
        "keys": True,
        "second_reading": "off",
    }
    assert http.get(NOWHERE).status_code == 404
    revoke(running, key_id)
    assert http.get("/v1/session").status_code == 401


def test_signing_out_ends_the_session_everywhere(running: Gateway, http: httpx.Client) -> None:
    http.post("/v1/session", json={"key": made(running)[1]})
    cookies = dict(http.cookies)
    assert http.delete("/v1/session").status_code == 204
    with running.client() as other:
        other.cookies.update(cookies)
        assert other.get("/v1/session").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_sites_and_other_ports_change_nothing_by_the_cookie(
    running: Gateway, http: httpx.Client, headers: dict[str, str]
) -> None:
    http.post("/v1/session", json={"key": made(running)[1]})
    assert http.delete(NOWHERE, headers=headers).status_code == 401
    assert http.delete("/v1/session", headers=headers).status_code == 401
    assert http.post("/v1/session", json={"key": made(running)[1]}, headers=headers).status_code == 401
    assert http.delete(NOWHERE, headers={"Origin": running.url}).status_code == 404
    assert http.get("/v1/session").status_code == 200


def test_a_session_ends_after_a_working_day(running: Gateway, http: httpx.Client) -> None:
    engine = open_database(f"sqlite:///{running.data_dir / 'jobs.sqlite3'}", migrate=False)
    secret = sessions.begin(engine, made(running)[1])
    assert sessions.find(engine, secret) is not None
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE sessions SET ends_at = 1")
    assert sessions.find(engine, secret) is None
    sessions.begin(engine, made(running)[1])
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM sessions WHERE ends_at = 1").scalar() == 0
    engine.dispose()
