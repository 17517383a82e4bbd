"""What other systems are to be told: every version of a result, in the order in which the versions came about.

A version is announced in the transaction that makes it (an analysis succeeds, a person signs), so none is lost;
who makes it need not know who is to be told.
"""

import time

from sqlalchemy import Connection, insert, select

from service.database import outbox

EVERY = "every"  # the channel of an announcement: not yet shared out to those that are configured


def announce(connection: Connection, analysis_id: str, tenant: str, revision: int) -> None:
    """Write down that a version of a result is to be sent (0: nobody has signed it); twice is once."""
    now = time.time()
    version = (outbox.c.analysis_id == analysis_id) & (outbox.c.channel == EVERY) & (outbox.c.revision == revision)
    if connection.execute(select(outbox.c.id).where(version)).first() is None:
        row = {"tenant": tenant, "analysis_id": analysis_id, "channel": EVERY, "revision": revision}
        connection.execute(insert(outbox).values(**row, status="waiting", attempts=0, created_at=now, next_at=now))
