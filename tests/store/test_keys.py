"""Keys: made once, stored hashed, ended at once; and the command that does so."""

import re
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from service.cli import app as cli
from service.errors import ParameterInvalid
from service.refusals import NotFound
from service.store import keys


def mitosis(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(each) for each in arguments], catch_exceptions=False)


def test_a_key_is_found_by_its_secret_only(engine: Engine) -> None:
    key_id, secret = keys.create(engine, "lis", "ward-3", ["read", "submit"])
    found = keys.find(engine, secret)
    assert found is not None
    assert (found.id, found.name, found.tenant, found.scopes) == (key_id, "lis", "ward-3", {"read", "submit"})
    for other in ("", key_id, secret[:-1], secret + "x", secret.upper(), found.id, "mk_", "\x00", "\udcff"):
        assert keys.find(engine, other) is None


def test_the_secret_is_long_recognisable_and_not_stored(engine: Engine) -> None:
    secrets = {keys.create(engine, "lis", "default", ["read"])[1] for _ in range(20)}
    assert len(secrets) == 20
    assert all(re.fullmatch(r"mk_[A-Za-z0-9_-]{43}", secret) for secret in secrets)  # 43 * 6 bits
    with engine.connect() as connection:
        stored = str(connection.execute(text("SELECT * FROM keys")).all())
    assert not any(secret in stored or secret[3:20] in stored for secret in secrets)


def test_the_hash_that_is_stored_is_no_secret(engine: Engine) -> None:
    keys.create(engine, "lis", "default", ["read"])
    with engine.connect() as connection:
        digest = connection.execute(text("SELECT sha256 FROM keys")).scalar_one()
    assert keys.find(engine, digest) is None


def test_a_revoked_key_is_none_but_still_locks_the_service(engine: Engine) -> None:
    assert not keys.exist(engine)
    key_id, secret = keys.create(engine, "lis", "default", ["admin"])
    assert keys.exist(engine)
    keys.revoke(engine, key_id)
    assert keys.find(engine, secret) is None
    assert keys.exist(engine)
    assert keys.list_all(engine)[0].revoked_at is not None
    with pytest.raises(NotFound, match=key_id):
        keys.revoke(engine, key_id)


@pytest.mark.parametrize(
    ("name", "tenant", "scopes"),
    [
        ("", "default", ["read"]),
        ("a b", "default", ["read"]),
        ("x" * 65, "default", ["read"]),
        ("lis", "../other", ["read"]),
        ("lis", "line\nbreak", ["read"]),
        ("lis", "default", []),
        ("lis", "default", ["read", "write"]),
    ],
)
def test_keys_that_are_none_are_not_made(engine: Engine, name: str, tenant: str, scopes: list[str]) -> None:
    with pytest.raises(ParameterInvalid):
        keys.create(engine, name, tenant, scopes)
    assert not keys.exist(engine)


def test_the_command_makes_lists_and_revokes(engine: Engine, tmp_path: Path) -> None:
    made = mitosis("keys", "create", "lis", "--scopes", "read,submit", "--tenant", "ward-3", "--data-dir", tmp_path)
    secret = made.stdout.strip()
    found = keys.find(engine, secret)
    assert found is not None
    assert (found.tenant, found.scopes) == ("ward-3", {"read", "submit"})
    listed = mitosis("keys", "list", "--data-dir", tmp_path).stdout
    assert all(shown in listed for shown in (found.id, "lis", "ward-3", "read,submit"))
    assert secret not in listed
    assert mitosis("keys", "revoke", found.id, "--data-dir", tmp_path).exit_code == 0
    assert keys.find(engine, secret) is None


def test_the_command_tells_what_is_wrong(tmp_path: Path) -> None:
    assert mitosis("keys", "create", "lis", "--data-dir", tmp_path).exit_code == 0
    run = mitosis("keys", "revoke", "nobody", "--data-dir", tmp_path)
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr.startswith("error: not-found: ")
    run = mitosis("keys", "create", "lis", "--scopes", "everything", "--data-dir", tmp_path)
    assert (run.exit_code, run.stdout) == (2, "")
    assert run.stderr.startswith("error: parameter-invalid: ")
