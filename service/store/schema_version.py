"""The revision of the tables: which it is, and the way back to an earlier one."""

import alembic.command
from sqlalchemy import Column, Engine, Integer, String, Table

from service.errors import ParameterInvalid
from service.store.database import metadata, migrating, reading
from service.store.migrations import alembic_config, known_revision, revision_of, revisions

# One row: the release that brought the tables to their revision, for earlier ones to name.
upgraded_by = Table(
    "upgraded_by",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 1
    Column("version", String(100), nullable=False),
)


def downgrade(engine: Engine, revision: str) -> None:
    """Take the tables back to an earlier revision; what only later ones hold, is lost.

    Raises ParameterInvalid for what is no earlier revision, SettingsInvalid where the tables are of a newer release.
    """
    with migrating(engine) as connection:
        earlier = [each for each in revisions() if each <= (known_revision(connection) or "")]
        if revision not in earlier:  # alembic also takes `base`, after which nothing is left
            there_are = ", ".join(earlier) or "none"
            raise ParameterInvalid(f"{revision[:64]!r} is no revision to go back to; there are {there_are}")
        alembic.command.downgrade(alembic_config(connection), revision)


def revision(engine: Engine) -> str:
    """Read the revision that the tables are of."""
    with reading(engine) as connection:
        return revision_of(connection) or "none"
