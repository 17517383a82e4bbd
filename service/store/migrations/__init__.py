"""The job store's schema, version by version."""

from contextlib import suppress
from pathlib import Path
from sqlite3 import SQLITE_ERROR
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from service import __version__
from service.commit import source_commit
from service.errors import SettingsInvalid

if TYPE_CHECKING:  # most starts have nothing to migrate, and do without it
    import alembic.config

FOLDER = Path(__file__).parent


def upgrade(connection: Connection) -> None:
    """Bring the tables to the newest revision.

    Raises SettingsInvalid where they are of a newer release, or not those of the revision that they are said to be of.
    """
    if known_revision(connection) == revisions()[-1]:
        return
    import alembic.command

    try:
        alembic.command.upgrade(alembic_config(connection), "head")
        connection.execute(text("DELETE FROM upgraded_by"))
        version = f"{__version__} ({source_commit() or 'of no commit'})"
        connection.execute(text("INSERT INTO upgraded_by VALUES (1, :version)"), {"version": version})
    except (ProgrammingError, IntegrityError, OperationalError) as error:
        if isinstance(error, OperationalError) and getattr(error.orig, "sqlite_errorcode", None) != SQLITE_ERROR:
            raise  # of the disk, a lock or the connection, and not of the tables
        raise SettingsInvalid(
            f"the tables cannot be brought up to date ({str(error.orig).splitlines()[0]}); nothing was changed. Is the "
            "database half restored, another program's, or closed to this user? Restore the backup, or name another"
        ) from error


def known_revision(connection: Connection) -> str | None:
    """Read the revision that the tables are of. Raises SettingsInvalid where it is of a newer release."""
    revision = revision_of(connection)
    if revision is not None and revision not in revisions():
        raise SettingsInvalid(
            f"the database is of a newer version of this service ({_writer(connection)}, revision {revision[:64]}), or "
            f"another program's; this is release {__version__}. Start that one; or have it take the tables back "
            f"(`mitosis migrate --down-to {revisions()[-1]}`, which deletes what only it has); or restore the backup"
        )
    return revision


def _writer(connection: Connection) -> str:
    """Say which release brought the tables to their revision, as far as that was written down."""
    with suppress(SQLAlchemyError):
        if told := connection.execute(text("SELECT version FROM upgraded_by")).scalar():
            return f"release {str(told)[:100]}"
    return "it does not say which release"


def revision_of(connection: Connection) -> str | None:
    """Read the revision that the tables are of; None where there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def is_behind(connection: Connection) -> bool:
    """Tell whether there are no tables, or an earlier release's; of a later one, all that this one uses is there."""
    return revision_of(connection) in (None, *revisions()[:-1])


def revisions() -> list[str]:
    """List all revisions, in their order: a file's name begins with its own."""
    return sorted(path.name[:4] for path in (FOLDER / "versions").glob("[0-9]*.py"))


def alembic_config(connection: Connection) -> "alembic.config.Config":
    """Tell alembic where the migrations are, and which connection to use."""
    import alembic.config

    config = alembic.config.Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))  # it interpolates
    return config
