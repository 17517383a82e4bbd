"""Settings of an installation: from the environment, overridden by the command line, refused by their names."""

import socket
from pathlib import Path

import pytest
from sqlalchemy import URL

from service.errors import SettingsInvalid
from service.store.settings import load_settings


def test_the_command_line_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MITOSIS_LEASE_S", "7")
    assert load_settings().lease_s == 7
    assert load_settings(lease_s=5).lease_s == 5
    assert load_settings(lease_s=None).lease_s == 7, "an option that was not given"


def test_lists_are_told_apart_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MITOSIS_ROOTS", " /slides , s3://bucket/x,")
    assert load_settings().roots == ("/slides", "s3://bucket/x")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEASE_S", "-1"),
        ("LEASE_S", "soon"),
        ("MAX_UPLOAD_BYTES", "-5"),
        ("SPLIT_PATCHES", "1.5"),
        ("KEEP_SLIDES_DAYS", "nan"),
        ("BROKER_URL", "nonsense"),
        ("BROKER_URL", "http://:secret@broker/0"),
        ("BROKER_URL", "redis://broker:99999/0"),
        ("LIS_ALLOW", "10.20.0.0/33"),
        ("LIS_ALLOW", "hospital.example"),
        ("DEVICE", "gpu"),
        ("RESULT_DEFINITIONS", ","),
        ("RESULT_DEFINITIONS", "total,mai"),
        ("VIEWER_URL", "mitosis.hospital.example"),
        ("VIEWER_URL", "https://mitosis.example/?key=1"),
        ("DATA_DIR", "~nobody-of-that-name/data"),
    ],
)
def test_what_is_no_setting_is_refused_by_its_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MITOSIS_{name}", value)
    with pytest.raises(SettingsInvalid, match=f"^MITOSIS_{name}: ") as raised:
        load_settings()
    assert value not in str(raised.value).split(": ", 1)[1].split()


def test_secrets_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MITOSIS_DICOMWEB_LOGIN", "user:s3cret")
    found = load_settings()
    assert "s3cret" not in repr(found)
    assert found.dicomweb_login is not None
    assert found.dicomweb_login.get_secret_value() == "user:s3cret"


def test_all_that_is_not_given_lies_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = load_settings(data_dir=Path("data"))
    assert found.data_dir == tmp_path / "data"
    assert found.database == URL.create("sqlite", database=f"{tmp_path}/data/jobs.sqlite3")
    assert found.broker == f"redis+socket://{found.broker_socket}"
    given = load_settings(database_url="postgresql+psycopg://db/x", broker_url="redis://broker:6379/0")
    assert (given.database, given.broker) == ("postgresql+psycopg://db/x", "redis://broker:6379/0")


def test_a_socket_may_be_bound_however_deep_the_folder_lies(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["folder"] * 20)
    paths = {load_settings(data_dir=folder).broker_socket for folder in (deep, deep / "other")}
    assert len(paths) == 2
    for path in paths:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
        path.unlink()
