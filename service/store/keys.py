"""Bearer keys: made once, shown once, stored as their SHA-256 only.

A key is 256 random bits, so a plain hash is enough: there is nothing to guess, and nothing to slow down.
"""

import hashlib
import re
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from sqlalchemy import JSON, Column, Engine, Float, Row, String, Table, insert, select, update

from service.errors import ParameterInvalid
from service.refusals import KeyRequired, NotFound
from service.store.database import change, fetch, hold_lock, metadata, writing

PREFIX: Final = "mk_"  # by which scanners of repositories and logs know a key
Scope = Literal["read", "submit", "review", "admin"]  # "admin" may do all
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
NAMES = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")

keys = Table(
    "keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
)


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is stored. Times are Unix seconds."""

    id: str
    name: str
    tenant: str
    scopes: frozenset[str]
    created_at: float
    revoked_at: float | None


def key_of(row: Row[Any]) -> Key:
    """Make a key of its row."""
    return Key(row.id, row.name, row.tenant, frozenset(row.scopes), row.created_at, row.revoked_at)


def create(engine: Engine, name: str, tenant: str, scopes: Collection[str]) -> tuple[str, str]:
    """Make a key; gives its id, and its secret, which cannot be had again.

    Raises ParameterInvalid for a name, tenant or scope that is none.
    """
    for what, value in (("name", name), ("tenant", tenant)):
        if not NAMES.fullmatch(value):
            raise ParameterInvalid(f"a key's {what} is up to 64 letters, digits and . _ @ -, not {value[:80]!r}")
    if not scopes or not set(scopes) <= set(SCOPES):
        raise ParameterInvalid(f"scopes are some of {', '.join(SCOPES)}, not {', '.join(sorted(scopes)) or 'none'}")
    key_id, secret = secrets.token_hex(8), PREFIX + secrets.token_urlsafe(32)
    row = {"id": key_id, "name": name, "tenant": tenant, "sha256": secret_sha256(secret)}
    with writing(engine) as connection:
        connection.execute(insert(keys).values(**row, scopes=sorted(set(scopes)), created_at=time.time()))
    return key_id, secret


def admit(engine: Engine, key_id: str, name: str, tenant: str, scopes: Collection[str]) -> Key:
    """Keep a person whom an OpenID provider vouches for as a key without a secret, with today's name and scopes.

    Raises KeyRequired where the operator revoked it.
    """
    values = {"name": name, "tenant": tenant, "scopes": sorted(scopes)}
    nobody = {"sha256": secret_sha256(secrets.token_urlsafe(32)), "created_at": time.time()}
    mine = keys.c.id == key_id
    with writing(engine) as connection:
        hold_lock(connection, f"key:{key_id}")
        if connection.execute(update(keys).where(mine).values(**values)).rowcount == 0:
            connection.execute(insert(keys).values(id=key_id, **values, **nobody))
        found = key_of(connection.execute(select(keys).where(mine)).one())
    refuse_revoked(engine, key_id)
    return found


def refuse_revoked(engine: Engine, key_id: str) -> None:
    """Refuse a person whom the operator has revoked. Raises KeyRequired."""
    if fetch(engine, select(keys.c.id).where(keys.c.id == key_id, keys.c.revoked_at.is_not(None))):
        raise KeyRequired("the operator of this service has revoked this account's access")


def list_all(engine: Engine) -> Sequence[Key]:
    """List all keys, revoked ones too, oldest first."""
    return [key_of(row) for row in fetch(engine, select(keys).order_by(keys.c.created_at, keys.c.id))]


def revoke(engine: Engine, key_id: str) -> None:
    """End a key's validity, at once and for good. Raises NotFound, for one that is revoked too."""
    valid = (keys.c.id == key_id) & keys.c.revoked_at.is_(None)
    if change(engine, update(keys).where(valid).values(revoked_at=time.time())) != 1:
        raise NotFound(f"there is no valid key {key_id[:64]!r}; `mitosis keys list` shows all")


def find(engine: Engine, secret: str) -> Key | None:
    """Find the valid key of a secret."""
    valid = (keys.c.sha256 == secret_sha256(secret)) & keys.c.revoked_at.is_(None)
    return next(map(key_of, fetch(engine, select(keys).where(valid))), None)


def exist(engine: Engine) -> bool:
    """Tell whether a key was ever made: revoking the last one must not open the service."""
    return bool(fetch(engine, select(keys.c.id).limit(1)))


def secret_sha256(secret: str) -> str:
    """Hash a key's or a session's secret, as it is stored."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
