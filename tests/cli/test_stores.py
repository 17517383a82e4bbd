"""Commands about a service's records, asked where there is no service."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli.app import app
from tests.cli.commands import mitosis_process

ABOUT_RECORDS = (
    *("keys list", "keys revoke x", "audit verify", "audit export", "verify --stored", "verify x"),
    *("lis queue", "lis held", "lis orders", "lis drop 1", "retention show"),
)


@pytest.mark.parametrize("words", ABOUT_RECORDS)
def test_where_no_service_was_nothing_is_said_to_be_well(tmp_path: Path, words: str) -> None:
    told = CliRunner().invoke(app, [*words.split(), "--data-dir", str(tmp_path / "data")])
    assert told.exit_code != 0
    assert told.stdout == ""
    assert told.stderr.startswith("error: settings-invalid: no service has used ")
    assert not (tmp_path / "data").exists()


def test_the_first_key_makes_the_database(tmp_path: Path) -> None:
    data = ["--data-dir", str(tmp_path / "data")]
    assert CliRunner().invoke(app, ["keys", "create", "admin", *data]).exit_code == 0
    assert "admin" in CliRunner().invoke(app, ["keys", "list", *data]).stdout


def test_a_database_of_postgresql_without_tables_is_no_service_s(
    postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MITOSIS_DATABASE_URL", postgresql)
    told = mitosis_process("audit", "verify")
    assert told.returncode != 0
    assert "no service has used postgresql" in told.stderr
    assert mitosis_process("keys", "create", "admin").returncode == 0
    assert mitosis_process("audit", "verify").returncode == 0
