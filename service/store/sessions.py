"""Sessions of browsers: a key is given once, and stands behind a random secret from then on.

A browser keeps that secret in a cookie that no script can read, so the key itself is in no address, no log and no
storage of the browser. A session ends with its key, after SESSION_S, or when its user signs out.
"""

import hashlib
import re
import secrets
import time
from typing import Final

from sqlalchemy import Engine, delete, insert, or_, select, true

from service.refusals import KeyRequired
from service.store import keys
from service.store.audit import record
from service.store.database import hold_lock, messages, reading, sessions, writing
from service.store.database import keys as keys_table
from service.store.keys import Key, secret_sha256

SESSION_S: Final = 12 * 3600.0  # a working day
GROUP_DIGITS: Final = 20  # hexadecimal; beside them, 172 bits are left of the secret's hash
GROUP: Final = re.compile(r"[0-9a-f]{20}")
MARK: Final = "-"  # behind the group; in no hash
PROVIDER: Final = "openid provider"  # no tenant is called so


def begin(engine: Engine, key_secret: str) -> str:
    """Begin a session; gives its secret. Raises KeyRequired where the key is not valid, and DatabaseUnavailable."""
    key = keys.find(engine, key_secret)
    if key is None:
        raise KeyRequired("this key is not valid; `mitosis keys create` makes one")
    return begin_of(engine, key)


def begin_of(engine: Engine, key: Key, group: str = "") -> str:
    """Begin a session of a key that is known; gives its secret. Raises DatabaseUnavailable.

    `group`: of `group_of`, by which it can be ended together with others.
    """
    secret, now = f"{group}.{secrets.token_urlsafe(32)}" if group else secrets.token_urlsafe(32), time.time()
    with writing(engine) as connection:
        connection.execute(delete(sessions).where(sessions.c.ends_at < now))
        connection.execute(insert(sessions).values(sha256=_stored(secret), key_id=key.id, ends_at=now + SESSION_S))
        record(connection, key.tenant, key.id, "sign_in", "")
    return secret


def find(engine: Engine, secret: str) -> Key | None:
    """Find the valid key behind a session that has not ended. Raises DatabaseUnavailable."""
    now = time.time()  # one that ends later than any can, began when the clock was wrong
    mine = (sessions.c.sha256 == _stored(secret)) & sessions.c.ends_at.between(now, now + SESSION_S)
    valid = select(keys_table).join(sessions, sessions.c.key_id == keys_table.c.id)
    with reading(engine) as connection:
        row = connection.execute(valid.where(mine, keys_table.c.revoked_at.is_(None))).one_or_none()
    return None if row is None else keys.key_of(row)


def end(engine: Engine, secret: str) -> None:
    """End a session, if there is one. Raises DatabaseUnavailable."""
    with writing(engine) as connection:
        connection.execute(delete(sessions).where(sessions.c.sha256 == _stored(secret)))


def end_told(engine: Engine, number: str, key_id: str | None, group: str | None) -> int | None:
    """End what a provider says is over; gives how many sessions, or None where it said so before by that number.

    Those of a group; of a key; or, where both are given, those of the key that are of the group or of none. Raises
    DatabaseUnavailable.
    """
    which = true() if key_id is None else sessions.c.key_id == key_id
    if group is not None:
        of_group = sessions.c.sha256.like(f"{group}{MARK}%")
        which &= of_group if key_id is None else or_(of_group, sessions.c.sha256.not_like(f"%{MARK}%"))
    told = {"tenant": PROVIDER, "key": number}
    with writing(engine) as connection:
        hold_lock(connection, f"logout:{number}")
        if connection.execute(select(messages.c.key).filter_by(**told)).first() is not None:
            return None
        connection.execute(insert(messages).values(**told, sha256=number, answer=b"", created_at=time.time()))
        people = select(keys_table.c.id, keys_table.c.tenant).join(sessions, sessions.c.key_id == keys_table.c.id)
        for row in connection.execute(people.where(which).distinct()).all():
            record(connection, row.tenant, row.id, "signed_out_by_provider", "")
        return connection.execute(delete(sessions).where(which)).rowcount


def group_of(name: str) -> str:
    """Name a group of sessions, whose name may be anything."""
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:GROUP_DIGITS]


def _stored(secret: str) -> str:
    """Name a session in the database: its group, if it has one, and a hash of its secret."""
    group, _, rest = secret.rpartition(".")
    if not GROUP.fullmatch(group):
        return secret_sha256(secret)
    return f"{group}{MARK}{secret_sha256(rest)[: 63 - GROUP_DIGITS]}"
