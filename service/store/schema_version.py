"""The revision of the tables: which it is, and the way back to an earlier one."""

import alembic.command
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Engine

from service.errors import ParameterInvalid
from service.store.database import available, reading
from service.store.migrations import alembic_config


def downgrade(engine: Engine, revision: str) -> None:
    """Take the tables back to an earlier revision; what only later ones hold, is lost. Raises ParameterInvalid."""
    with available(), engine.execution_options(writes=True).begin() as connection:
        try:
            alembic.command.downgrade(alembic_config(connection), revision)
        except CommandError as error:
            raise ParameterInvalid(str(error)) from error


def revision(engine: Engine) -> str:
    """Read the revision that the tables are of. Raises DatabaseUnavailable."""
    with reading(engine) as connection:
        return MigrationContext.configure(connection).get_current_revision() or "none"


def is_behind(engine: Engine) -> bool:
    """Tell whether the tables are those of an earlier release; of a later one, all that this one uses is there.

    Raises DatabaseUnavailable.
    """
    with reading(engine) as connection:
        scripts = ScriptDirectory.from_config(alembic_config(connection))
        known = {script.revision for script in scripts.walk_revisions()}
        return (MigrationContext.configure(connection).get_current_revision() or "") in known - set(scripts.get_heads())
