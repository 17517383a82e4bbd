"""`mitosis verify`: an analysis of the service, run again here, and what differs."""

from typing import Annotated

import typer

from service.cli.console import progress
from service.cli.options import DataDir
from service.cli.stores import open_stores, record_command

MAX_LINES = 40


def verify_command(
    analysis_id: Annotated[str, typer.Argument(metavar="ID", help="Of an analysis that succeeded.")],
    data_dir: DataDir = None,
) -> None:
    """Run an analysis again from its stored slide and compare. Exit 0: the same; 1: it differs, and where."""
    from service.hosts import guard_urls, listed_hosts
    from service.store.storage import Storage
    from service.worker.verification import verify

    settings, engine = open_stores(data_dir, migrate=False)
    guard_urls(listed_hosts(settings.uri_hosts))
    with progress(analysis_id[:36]) as on_progress:
        found = verify(engine, Storage(settings.data_dir, settings.roots), analysis_id, on_progress)
    for note in found.notes:
        typer.echo(f"note: {note}")
    for line in found.differences[:MAX_LINES]:
        typer.echo(line)
    if len(found.differences) > MAX_LINES:
        typer.echo(f"... and {len(found.differences) - MAX_LINES} more")
    same = not found.differences
    if same:
        typer.echo("The same: slide, model, parameters, detections and counts.")
    about = {"same": same, "differences": len(found.differences)}
    record_command(engine, found.analysis.tenant, "verify", found.analysis.id, **about)
    raise typer.Exit(0 if same else 1)
