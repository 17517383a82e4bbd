"""Sessions of browsers: a key is given once, and stands behind a random secret from then on.

A browser keeps that secret in a cookie that no script can read, so the key itself is in no address, no log and no
storage of the browser. A session ends with its key, after SESSION_S, or when its user signs out;
those of people whom an OpenID provider vouches for may be shorter, since it is not asked in between.
"""

import secrets
import time
from typing import Final

from sqlalchemy import Column, Engine, Float, ForeignKey, String, Table, delete, insert, or_, select, true

from service.refusals import KeyRequired
from service.store import keys
from service.store.audit import record
from service.store.database import fetch, hold_lock, messages, metadata, writing
from service.store.keys import Key, secret_sha256
from service.store.keys import keys as keys_table

SESSION_S: Final = 12 * 3600.0  # a working day
PROVIDER: Final = "openid provider"  # no tenant is called so
# Browsers that are signed in; each stands for a key, and ends with it.
sessions = Table(
    "sessions",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("key_id", String(16), ForeignKey("keys.id", ondelete="CASCADE"), nullable=False),
    Column("ends_at", Float, nullable=False),
    Column("provider_session", String(64)),  # hash of the OpenID provider's own session, where it named that
)
KEYS_OF_SESSIONS: Final = select(keys_table).join(sessions, sessions.c.key_id == keys_table.c.id)


def begin(engine: Engine, key_secret: str) -> str:
    """Begin a session; gives its secret. Raises KeyRequired where the key is not valid."""
    key = keys.find(engine, key_secret)
    if key is None:
        raise KeyRequired("this key is not valid; `mitosis keys create` makes one")
    return begin_of(engine, key)


def begin_of(engine: Engine, key: Key, provider_session: str | None = None, lasts_s: float = SESSION_S) -> str:
    """Begin a session of a key that is known; gives its secret.

    `provider_session`: the provider's own one, with which it ends. It lasts SESSION_S at most.
    """
    secret, now = secrets.token_urlsafe(32), time.time()
    row = {"key_id": key.id, "ends_at": now + lasts_s, "provider_session": provider_session}
    with writing(engine) as connection:
        connection.execute(delete(sessions).where(sessions.c.ends_at < now))
        connection.execute(insert(sessions).values(sha256=secret_sha256(secret), **row))
        record(connection, key.tenant, key.id, "sign_in", "")
    return secret


def find(engine: Engine, secret: str) -> Key | None:
    """Find the valid key behind a session that has not ended."""
    now = time.time()  # one that ends later than any can, began when the clock was wrong
    mine = (sessions.c.sha256 == secret_sha256(secret)) & sessions.c.ends_at.between(now, now + SESSION_S)
    return next(map(keys.key_of, fetch(engine, KEYS_OF_SESSIONS.where(mine, keys_table.c.revoked_at.is_(None)))), None)


def end(engine: Engine, secret: str) -> None:
    """End a session, if there is one."""
    mine = sessions.c.sha256 == secret_sha256(secret)
    with writing(engine) as connection:
        who = connection.execute(KEYS_OF_SESSIONS.where(mine)).one_or_none()
        if connection.execute(delete(sessions).where(mine)).rowcount and who is not None:
            record(connection, who.tenant, who.id, "sign_out", "")


def end_told(engine: Engine, number: str, key_id: str | None, provider_session: str | None) -> int | None:
    """End what a provider says is over; gives how many sessions, or None where it said so before by that number.

    Those of its session; of a key; or, where both are given, those of the key that are of its session or of none.
    """
    which = true() if key_id is None else sessions.c.key_id == key_id
    if provider_session is not None:
        same = sessions.c.provider_session == provider_session
        which &= same if key_id is None else or_(same, sessions.c.provider_session.is_(None))
    told = {"tenant": PROVIDER, "key": number}
    with writing(engine) as connection:
        hold_lock(connection, f"logout:{number}")
        if connection.execute(select(messages.c.key).filter_by(**told)).first() is not None:
            return None
        connection.execute(insert(messages).values(**told, sha256=number, answer=b"", created_at=time.time()))
        keys_of_these = KEYS_OF_SESSIONS.with_only_columns(keys_table.c.id, keys_table.c.tenant).where(which)
        for row in connection.execute(keys_of_these.distinct()).all():
            record(connection, row.tenant, row.id, "signed_out_by_provider", "")
        return connection.execute(delete(sessions).where(which)).rowcount
