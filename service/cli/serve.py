"""`mitosis serve`, and its parts for production: `mitosis api` and `mitosis worker`."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from service.cli.options import Model
from service.errors import ParameterInvalid
from service.files import keep_private
from service.store.settings import load_settings

Host = Annotated[str, typer.Option(help="Address to listen on; beyond loopback only with keys.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")]
DataDir = Annotated[Optional[Path], typer.Option(metavar="DIR", help="Slides, results, embedded database and broker.")]
Device = Annotated[Optional[str], typer.Option(help="auto, cpu or cuda.")]


def serve_command(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    data_dir: DataDir = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes; one per GPU.")] = 1,
    model: Model = None,
    device: Device = None,
) -> None:
    """Serve everything from one command: gateway, workers, and an embedded broker."""
    from service.cli.supervisor import serve_all

    serve_all(load_settings(data_dir=data_dir, model=model, device=device), host, port, workers)


def api_command(host: Host = "127.0.0.1", port: Port = 8000, data_dir: DataDir = None, model: Model = None) -> None:
    """Serve the gateway alone; broker and workers run elsewhere."""
    from service.store.database import open_database
    from service.store.logs import set_up_logs

    settings = load_settings(data_dir=data_dir, model=model)
    if not settings.broker_url:
        raise ParameterInvalid("the gateway alone needs MITOSIS_BROKER_URL; `mitosis serve` brings a broker")
    set_up_logs("gateway")
    keep_private()
    engine = open_database(settings.database)
    # a second of imports, which a start that cannot be does without
    from service.api.app import create_app
    from service.api.auth import refuse_open_listener
    from service.api.server import serve

    refuse_open_listener(host, engine, settings.oidc_issuer)
    serve(create_app(settings), host, port)


def worker_command(
    data_dir: DataDir = None,
    model: Model = None,
    device: Device = None,
    with_parent: Annotated[Optional[int], typer.Option(metavar="PID", help="End when this parent does.")] = None,
) -> None:
    """Run one worker: one slide at a time, on one device."""
    from service.worker.process import run_worker

    raise typer.Exit(run_worker(load_settings(data_dir=data_dir, model=model, device=device), with_parent))
