"""The job store's schema, version by version."""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from service.errors import SettingsInvalid

if TYPE_CHECKING:  # most starts have nothing to migrate, and do without it
    import alembic.config

FOLDER = Path(__file__).parent


def upgrade(connection: Connection) -> None:
    """Bring the tables to the newest revision. Raises SettingsInvalid where they are of a newer release."""
    if revision_of(connection) == _revisions()[-1]:
        return
    import alembic.command
    from alembic.util.exc import CommandError

    try:
        alembic.command.upgrade(alembic_config(connection), "head")
    except CommandError as error:
        raise SettingsInvalid(
            f"the database is of a newer version of this service ({error}); start that one, or restore the backup"
        ) from error


def revision_of(connection: Connection) -> str | None:
    """Read the revision that the tables are of; None where there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def is_behind(connection: Connection) -> bool:
    """Tell whether there are no tables, or an earlier release's; of a later one, all that this one uses is there."""
    return revision_of(connection) in (None, *_revisions()[:-1])


def _revisions() -> list[str]:
    """List all revisions, in their order: a file's name begins with its own."""
    return sorted(path.name[:4] for path in (FOLDER / "versions").glob("[0-9]*.py"))


def alembic_config(connection: Connection) -> "alembic.config.Config":
    """Tell alembic where the migrations are, and which connection to use."""
    import alembic.config

    config = alembic.config.Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))  # it interpolates
    return config
