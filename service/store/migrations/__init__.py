"""The job store's schema, version by version."""

from pathlib import Path

import alembic.config
from sqlalchemy import Connection

FOLDER = Path(__file__).parent


def alembic_config(connection: Connection) -> alembic.config.Config:
    """Tell alembic where the migrations are, and which connection to use."""
    config = alembic.config.Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))  # it interpolates
    return config
