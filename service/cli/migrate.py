"""`mitosis migrate`: the database's tables, brought to the version that this release needs, or back."""

from typing import Annotated, Optional

import typer

from service.cli.console import stderr
from service.cli.stores import record_command
from service.store.database import open_database
from service.store.settings import load_settings


def migrate_command(
    down_to: Annotated[
        Optional[str],
        typer.Option(metavar="REVISION", help="Back to an earlier one, as 0001: what later ones added is deleted."),
    ] = None,
) -> None:
    """Bring the database up to date, and say of which revision it is. Twice, or by several at once, does no harm."""
    from service.store.schema_version import downgrade, revision

    engine = open_database(load_settings().database, migrate=down_to is None)
    if down_to is not None:
        record_command(engine, "", "migrate_down", down_to, before=revision(engine))  # first: the log may go with it
        downgrade(engine, down_to)
    stderr.print(f"The database is of revision {revision(engine)}.")
    engine.dispose()
