"""`mitosis audit`: take the audit log out, and see that nobody has changed it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Optional

import typer

from service.cli.options import DataDir, command_group
from service.cli.stores import open_stores, record_command
from service.errors import AuditBroken
from service.store.audit import AuditEntry, entries, verify

audit_app = command_group("audit", "Who looked at which result, and who changed what.")


@audit_app.command("export")
def export_command(
    after: Annotated[int, typer.Option(min=0, help="Only entries after this number.")] = 0, data_dir: DataDir = None
) -> None:
    """Print the log as JSON lines on standard output, oldest first."""
    (_, engine), number = open_stores(data_dir), after
    for entry in entries(engine, after):
        sys.stdout.write(entry.to_json() + "\n")
        number = entry.number
    record_command(engine, "", "export_audit", "", after=after, to=number)


@audit_app.command("verify")
def verify_command(
    file: Annotated[
        Optional[Path], typer.Option(exists=True, dir_okay=False, help="What `export` wrote, instead of the database.")
    ] = None,
    known: Annotated[
        Optional[str], typer.Option(metavar="SHA256", help="A last checksum of before: it must still be there.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Check the chain; exit 1 and name the first entry that is not what was written. Prints the last checksum."""
    number, last = verify(_lines(file) if file else entries(open_stores(data_dir)[1]), known)
    typer.echo(last)
    typer.echo(f"{number} entries, unbroken. Keep the last one's checksum elsewhere: --known looks for it.", err=True)


def _lines(file: Path) -> Iterator[AuditEntry]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield AuditEntry.from_json(line)
            except ValueError as error:
                raise AuditBroken(f"line {number} of {file} is no entry: {error}") from error
