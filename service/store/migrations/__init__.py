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
    if is_up_to_date(connection):
        return
    import alembic.command
    from alembic.util.exc import CommandError

    try:
        alembic.command.upgrade(alembic_config(connection), "head")
    except CommandError as error:
        raise SettingsInvalid(
            f"the database is of a newer version of this service ({error}); start that one, or restore the backup"
        ) from error


def is_up_to_date(connection: Connection) -> bool:
    """Tell whether the tables are of the newest revision; its file's name begins with it."""
    if not inspect(connection).has_table("alembic_version"):
        return False
    newest = max(path.name[:4] for path in (FOLDER / "versions").glob("[0-9]*.py"))
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [newest]


def alembic_config(connection: Connection) -> "alembic.config.Config":
    """Tell alembic where the migrations are, and which connection to use."""
    import alembic.config

    config = alembic.config.Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))  # it interpolates
    return config
