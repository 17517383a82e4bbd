"""Settings of an installation: from the environment, overridden by the command line, refused by their names."""

import socket
from pathlib import Path

import pytest
from sqlalchemy import URL

from service.errors import SettingsInvalid
from service.store.database import open_database
from service.store.settings import Settings, load_settings


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
        ("DATA_DIR", '"/var/lib/mitosis"'),
        ("LIS_TENANT", "'lab'"),
        ("LIS_TENANT", "two words"),
        ("LEASE_S", "0.5"),
        ("SLIDE_ID_PATTERN", "(?P<id>S"),
        ("SLIDE_ID_PATTERN", "S[0-9]+"),
        ("TIME_LIMIT_S", "inf"),
        ("BROKER_URL", "redis://:pass/word@broker:6379/0"),
    ],
)
def test_what_is_no_setting_is_refused_by_its_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MITOSIS_{name}", value)
    with pytest.raises(SettingsInvalid, match=f"^MITOSIS_{name}: ") as raised:
        load_settings()
    assert value not in str(raised.value).split(": ", 1)[1].split()


@pytest.mark.parametrize("name", ["MITOSIS_SECOND_READNG", "mitosis_keep_signed_day", "MITOSIS_LEASE"])
def test_a_misspelt_name_is_refused_and_not_overlooked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "blinded")
    with pytest.raises(SettingsInvalid, match=f"^{name} is no setting"):
        load_settings()


def test_variables_of_commands_and_of_kubernetes_are_no_misspelt_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KEY", "SERVER", "CACHE_DIR", "SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT", "API_PORT_80_TCP_ADDR"):
        monkeypatch.setenv(f"MITOSIS_{name}", "x")
    load_settings()


def test_blanks_around_a_value_are_not_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MITOSIS_LIS_TENANT", " lab\r\n")
    monkeypatch.setenv("MITOSIS_DATA_DIR", "/var/lib/mitosis\r")
    monkeypatch.setenv("MITOSIS_CALLBACK_SECRET", "\ufeffwhsec_x\n")
    found = load_settings()
    assert (found.lis_tenant, found.data_dir) == ("lab", Path("/var/lib/mitosis"))
    assert found.callback_secret is not None
    assert found.callback_secret.get_secret_value() == "whsec_x"


def test_what_is_empty_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = load_settings()
    for name in Settings.model_fields:
        monkeypatch.setenv(f"MITOSIS_{name.upper()}", " ")
    assert load_settings() == nothing


def test_a_secret_file_that_is_no_setting_or_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Settings.model_config, "secrets_dir", tmp_path)
    (tmp_path / "tls_key").write_text("another program's")
    token = tmp_path / "mitosis_dicomweb_token"
    token.write_text("s3cret\n")
    found = load_settings().dicomweb_token
    assert found is not None
    assert found.get_secret_value() == "s3cret"
    token.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsInvalid, match="cannot be read"):
        load_settings()
    token.unlink()
    token.mkdir()  # what Docker makes of a file that is not there
    with pytest.raises(SettingsInvalid, match="mitosis_dicomweb_token is no file"):
        load_settings()
    token.rename(tmp_path / "mitosis_dicomweb_tokens")
    with pytest.raises(SettingsInvalid, match="mitosis_dicomweb_tokens is no file"):
        load_settings()


@pytest.mark.parametrize("password", ["ge@heim:wort", "ge:heim@wort:x"])
def test_no_part_of_a_database_s_password_is_told(password: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"^MITOSIS_DATABASE_URL: ") as raised:
        open_database(f"postgresql+psycopg://mitosis:{password}@db:port/x")
    assert not {"wort", "heim"} & set(str(raised.value).replace("'", " ").replace(":", " ").split())


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
