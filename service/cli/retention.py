"""`mitosis retention`: what is deleted because it is old, and a person's word where the service does not dare to."""

import time
from typing import Annotated

import typer

from service.cli.options import DataDir, command_group
from service.cli.stores import open_stores, record_command
from service.store.clock import utc
from service.store.database import reading
from service.store.retention import Limits, allow, due, state

retention_app = command_group("retention", "What is deleted because it is old.")


@retention_app.command("show")
def show_command(data_dir: DataDir = None) -> None:
    """Show what is old by now, when something was deleted last, and why it is refused (exit 1); times are UTC."""
    settings, engine = open_stores(data_dir)
    now = time.time()
    with reading(engine) as connection:
        row, found = state(connection), due(connection, Limits.of(settings, now))
    typer.echo(f"It is {utc(now)}. Old by now: {found}.")
    typer.echo(f"Last round: {utc(row.last_at) if row else 'none yet'}.")
    if row is not None and row.reason is not None:
        typer.echo(f"Refused since {utc(row.refused_at)}: {row.reason}.")
        allowed = (
            f"Allowed at {utc(row.allowed_at)}." if row.allowed_at else "`mitosis retention go-on` allows it once."
        )
        typer.echo(f"Nothing is deleted meanwhile. {allowed}")
        raise typer.Exit(1)


@retention_app.command("go-on")
def go_on_command(
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Who decides: Family, Given.")],
    reason: Annotated[str, typer.Option(help="Why the clock is right; kept in the audit log.")],
    data_dir: DataDir = None,
) -> None:
    """Let the next round delete what is old, though the last one was refused."""
    _, engine = open_stores(data_dir)
    refused = allow(engine)
    record_command(engine, "", "allow_retention", "", name=name, reason=reason, refused=refused)
    typer.echo("The next round is done, within ten minutes.", err=True)
