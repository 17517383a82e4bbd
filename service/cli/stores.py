"""The stores of a service on this machine, as commands open them; every command that changes something is recorded."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.files import keep_private

if TYPE_CHECKING:  # the database is imported when a command runs, not when its help is shown
    from sqlalchemy import Engine

    from service.store.settings import Settings


def open_stores(data_dir: Path | None, *, migrate: bool = True) -> "tuple[Settings, Engine]":
    """Load the settings and open the database that they name. Raises as `open_database`."""
    from service.store.database import open_database
    from service.store.settings import load_settings

    keep_private()
    settings = load_settings(data_dir=data_dir)
    return settings, open_database(settings.database, migrate=migrate)


def record_command(engine: "Engine", tenant: str, action: str, about: str, **detail: Any) -> None:
    """Enter into the audit log what the user of this command line has done."""
    from service.store.audit import record

    record(engine, tenant, f"command line, uid {os.getuid()}", action, about, **detail)
