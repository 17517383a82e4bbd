"""The environment of the processes that open slides, as the kernel shows it: no secret that they do not need."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import FileMissing
from service.intake.child_environment import environment_for, without_logins
from service.intake.sandbox import Sandbox
from service.location import Location
from service.refusals import SourceUnavailable
from tests.deployment.programs import free_port
from tests.slides import draw_tissue, write_svs

SECRETS = {
    "MITOSIS_DATABASE_URL": "postgresql+psycopg://mitosis:a-secret@db/mitosis",
    "MITOSIS_BROKER_URL": "redis://:a-secret@broker",
    "MITOSIS_OIDC_CLIENT_SECRET": "a-secret",
    "MITOSIS_CALLBACK_SECRET": "whsec_a-secret",
    "DATABASE_URL": "postgresql://a-secret@db",
    "PGPASSWORD": "a-secret",
    "REDISCLI_AUTH": "a-secret",
    "GITHUB_TOKEN": "a-secret",
    "HTTPS_PROXY": "http://somebody:a-secret@proxy",
    "GOOGLE_APPLICATION_CREDENTIALS": "/a-secret",
    "AZURE_STORAGE_KEY": "a-secret",
}
LOGIN = {"AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": "a-login", "AWS_SESSION_TOKEN": "a-login"}


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    for name, value in (SECRETS | LOGIN).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")  # where nobody answers
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with Sandbox() as found:
        yield found


def children() -> dict[int, str]:
    """The environment of each of this process' children that open slides."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"sandbox_child" in (process / "cmdline").read_bytes():
                found[int(process.name)] = (process / "environ").read_bytes().replace(b"\0", b"\n").decode()
        except OSError:
            continue
    return found


def test_a_process_that_opens_uploads_has_no_secret(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    write_svs(path, draw_tissue(512, 512))
    assert asyncio.run(sandbox.inspect(Location(str(path)), "a.svs")).facts["width"] == 512
    [environment] = children().values()
    names = {line.partition("=")[0] for line in environment.splitlines()}
    assert "PATH" in names
    assert not names & (SECRETS.keys() | LOGIN.keys())
    assert not [line for line in environment.splitlines() if "a-secret" in line or "a-login" in line]


def test_the_login_of_a_storage_is_in_the_process_that_reads_it_and_opens_nothing_else(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    [local] = children()
    with pytest.raises((SourceUnavailable, FileMissing)):
        asyncio.run(sandbox.inspect(Location("s3://bucket/a.svs", "s3://bucket"), "a.svs"))
    [remote] = children().keys() - {local}
    environment = children()[remote]
    assert environment.count("a-login") == 2
    assert "a-secret" not in environment.replace(SECRETS["HTTPS_PROXY"], "")  # on its way there
    path = tmp_path / "a.svs"
    write_svs(path, draw_tissue(512, 512))
    asyncio.run(sandbox.inspect(Location(str(path)), "a.svs"))
    assert {pid for pid, each in children().items() if "a-login" in each} == {remote}


def test_which_login_goes_with_which_storage() -> None:
    parent = {"PATH": "/bin", "AWS_PROFILE": "a", "AZURE_STORAGE_KEY": "b", "MITOSIS_KEY": "c", "HTTP_PROXY": "d"}
    given = {scheme: environment_for(scheme, parent).keys() & parent.keys() for scheme in ("", "s3", "abfs", "https")}
    assert given == {
        "": {"PATH"},
        "s3": {"PATH", "AWS_PROFILE", "HTTP_PROXY"},
        "abfs": {"PATH", "AZURE_STORAGE_KEY", "HTTP_PROXY"},
        "https": {"PATH", "HTTP_PROXY"},
    }
    assert parent.keys() - without_logins(parent, ["/archive", "s3://slides/a"]).keys() == {"AZURE_STORAGE_KEY"}
    assert parent.keys() - without_logins(parent, []).keys() == {"AZURE_STORAGE_KEY", "AWS_PROFILE"}
