"""`mitosis verify`: an analysis of the service, run again here, and what differs; or all that is stored, looked at."""

from pathlib import Path
from typing import Annotated, NoReturn, Optional

import typer

from service.cli.console import progress
from service.cli.options import DataDir
from service.cli.stores import open_stores, record_command
from service.errors import ParameterInvalid
from service.hosts import guard_urls, listed_hosts
from service.store.data_directory import require_mark
from service.store.logs import set_up_logs
from service.store.results import check_all
from service.store.slides import check_slides
from service.store.storage import Storage
from service.worker.verification import verify

MAX_LINES = 40


def verify_command(
    analysis_id: Annotated[
        Optional[str], typer.Argument(metavar="[ID]", help="Of an analysis that succeeded, to be run again.")
    ] = None,
    stored: Annotated[
        bool, typer.Option("--stored", help="Compare all stored results with their checksums instead; runs nothing.")
    ] = False,
    slides: Annotated[
        bool, typer.Option("--slides", help="With --stored: the uploaded slides too, which are read whole.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Run an analysis again from its slide, or look at all that is stored. Exit 1: it is not the same, and where."""
    if (analysis_id is None) is not stored or (slides and not stored):
        raise ParameterInvalid("give the ID of an analysis, or --stored")
    if analysis_id is None:
        _verify_stored(data_dir, slides)
    else:
        _verify(analysis_id, data_dir)


def _verify_stored(data_dir: Path | None, slides: bool) -> NoReturn:
    settings, engine = open_stores(data_dir)
    require_mark(engine, settings.data_dir)  # in another directory all would be damaged
    set_up_logs("verify")  # to standard error
    storage = Storage(settings.data_dir)
    found = {"results": 0, "damaged_results": 0, "slides": 0, "damaged_slides": 0}
    for _, wrong in check_all(engine, storage):
        found["results"] += 1
        found["damaged_results"] += bool(wrong)
        for line in wrong:
            typer.echo(line)
    for _, what in check_slides(engine, storage) if slides else ():
        found["slides"] += 1
        found["damaged_slides"] += bool(what)
        if what:
            typer.echo(what)
    typer.echo(f"{found['results']} results, {found['damaged_results']} of them damaged.", err=True)
    if slides:
        typer.echo(f"{found['slides']} slides, {found['damaged_slides']} of them damaged.", err=True)
    record_command(engine, "", "verify_stored", "", **found)
    damaged = found["damaged_results"] + found["damaged_slides"]
    raise typer.Exit(1 if damaged else 0)


def _verify(analysis_id: str, data_dir: Path | None) -> NoReturn:
    settings, engine = open_stores(data_dir, migrate=False)
    set_up_logs("verify")  # to standard error
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
