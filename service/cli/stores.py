"""The stores of a service on this machine, as commands open them; every command that changes something is recorded."""

import os
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, make_url

from service.errors import SettingsInvalid
from service.files import keep_private
from service.store.audit import record
from service.store.database import open_database, reading
from service.store.migrations import revision_of
from service.store.settings import Settings, load_settings


def open_stores(data_dir: Path | None, *, migrate: bool = True, new: bool = False) -> tuple[Settings, Engine]:
    """Load the settings and open the database that they name; only if `new`, one is made where there is none.

    Raises SettingsInvalid where there is none, and as `open_database`.
    """
    keep_private()
    settings = load_settings(data_dir=data_dir)
    if not new:
        _require_database(settings)
    return settings, open_database(settings.database, migrate=migrate)


def _require_database(settings: Settings) -> None:
    """Refuse a database that no service has used: whoever asks it in another folder would hear that all is well."""
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


def record_command(engine: Engine, tenant: str, action: str, about: str, **detail: Any) -> None:
    """Enter into the audit log what the user of this command line has done."""
    record(engine, tenant, command_line_user(), action, about, **detail)


def command_line_user() -> str:
    """Name the user of this command line, as the audit log does."""
    return f"command line, uid {os.getuid()}"
