"""The stores of a service on this machine, as commands open them; every command that changes something is recorded."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.files import keep_private

if TYPE_CHECKING:  # the database is imported when a command runs, not when its help is shown
    from sqlalchemy import Engine

    from service.store.settings import Settings


def open_stores(data_dir: Path | None, *, migrate: bool = True, new: bool = False) -> "tuple[Settings, Engine]":
    """Load the settings and open the database that they name; only if `new`, one is made where there is none.

    Raises SettingsInvalid where there is none, and as `open_database`.
    """
    from service.store.database import open_database
    from service.store.settings import load_settings

    keep_private()
    settings = load_settings(data_dir=data_dir)
    if not new:
        _require_database(settings)
    return settings, open_database(settings.database, migrate=migrate)


def _require_database(settings: "Settings") -> None:
    """Refuse a database that no service has used: whoever asks it in another folder would hear that all is well."""
    from sqlalchemy import make_url

    from service.errors import SettingsInvalid
    from service.store.database import open_database, reading
    from service.store.migrations import revision_of

    embedded = settings.data_dir / "jobs.sqlite3"
    found = bool(settings.database_url) or embedded.exists()
    if found:
        engine = open_database(settings.database, migrate=False)
        try:
            with reading(engine) as connection:
                found = revision_of(connection) is not None
        finally:
            engine.dispose()
    if not found:
        where = make_url(settings.database).render_as_string() if settings.database_url else embedded
        raise SettingsInvalid(f"no service has used {where}; --data-dir or MITOSIS_DATABASE_URL names the one meant")


def record_command(engine: "Engine", tenant: str, action: str, about: str, **detail: Any) -> None:
    """Enter into the audit log what the user of this command line has done."""
    from service.store.audit import record

    record(engine, tenant, f"command line, uid {os.getuid()}", action, about, **detail)
