"""`mitosis lis`: orders from the laboratory's system, and what waits on the way to it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from service.cli.options import DataDir
from service.cli.stores import open_stores, record_command, utc
from service.errors import ParameterInvalid

if TYPE_CHECKING:  # the database is imported when a command runs, not when its help is shown
    from sqlalchemy import Engine, Row

lis_app = typer.Typer(
    name="lis", help="Orders in and results out, by HL7.", no_args_is_help=True, pretty_exceptions_enable=False
)

Number = Annotated[int, typer.Argument(metavar="NUMBER", help="As `queue` shows it.")]


@lis_app.command("listen")
def listen_command(
    host: Annotated[
        str, typer.Option(help="Address to listen on; who may send, MITOSIS_LIS_ALLOW says.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 2575,
    certificate: Annotated[Optional[Path], typer.Option(metavar="FILE", help="PEM, for TLS.")] = None,
    certificate_key: Annotated[Optional[Path], typer.Option(metavar="FILE", help="PEM, if not in the other.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Take orders by HL7 v2 over MLLP; they wait for their slides in the service's database."""
    import asyncio

    from service.interop.hl7_answers import answer, too_large
    from service.interop.mllp import Listener, networks
    from service.store.logs import set_up_logs

    settings, engine = open_stores(data_dir)
    tls = _tls(certificate, certificate_key) if certificate is not None else None
    listener = Listener(
        lambda content: answer(engine, content, settings.lis_tenant, settings.lis_charset),
        too_large,
        networks(settings.lis_allow),
    )
    set_up_logs("lis")
    try:
        asyncio.run(listener.listen(host, port, lambda found: typer.echo(f"Listening on {host}:{found}"), tls))
    except OSError as error:
        raise ParameterInvalid(f"{host}:{port}: {error.strerror or error}") from error


@lis_app.command("queue")
def queue_command(data_dir: DataDir = None) -> None:
    """List what waits to be sent or was refused, in order, with its last error; times are UTC."""
    from service.store.outbox import undelivered

    line = "{:<8}  {:<8}  {:<8}  {:<36}  {:>8}  {:>5}  {:<16}  {:<16}  {}"
    typer.echo(
        line.format("NUMBER", "CHANNEL", "STATUS", "ANALYSIS", "REVISION", "TRIES", "SINCE", "NEXT TRY", "LAST ERROR")
    )
    for row in undelivered(open_stores(data_dir)[1]):
        following = utc(row.next_at) if row.status == "waiting" else ""
        facts = (row.id, row.channel, row.status, row.analysis_id, row.revision, row.attempts, utc(row.created_at))
        typer.echo(line.format(*facts, following, row.last_error or "").rstrip())


@lis_app.command("retry")
def retry_command(number: Number, data_dir: DataDir = None) -> None:
    """Try one now, also if it was refused; not where a later version of that result is there already."""
    from service.store.outbox import retry

    _, engine = open_stores(data_dir)
    _record(engine, "retry_result", retry(engine, number))
    typer.echo(f"{number} is tried again.", err=True)


@lis_app.command("drop")
def drop_command(number: Number, data_dir: DataDir = None) -> None:
    """Give one up for good, so that what waits behind it goes on."""
    from service.store.outbox import drop

    _, engine = open_stores(data_dir)
    _record(engine, "drop_result", drop(engine, number))
    typer.echo(f"{number} is dropped.", err=True)


@lis_app.command("orders")
def orders_command(data_dir: DataDir = None) -> None:
    """List orders whose slide has not come; times are UTC."""
    from service.store.orders import waiting

    settings, engine = open_stores(data_dir)
    line = "{:<36}  {:<16}  {:<24}  {:<24}  {}"
    typer.echo(line.format("ID", "SINCE", "SLIDE", "NUMBER", "LAST MESSAGE"))
    for row in waiting(engine, settings.lis_tenant):
        typer.echo(line.format(row.id, utc(row.created_at), row.identifier, row.number, row.message))


def _record(engine: "Engine", action: str, row: "Row[Any]") -> None:
    facts = {"number": row.id, "channel": row.channel, "revision": row.revision}
    record_command(engine, row.tenant, action, row.analysis_id, **facts)


def _tls(certificate: Path, key: Path | None) -> Any:
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # SSLError is one
        raise ParameterInvalid(f"{certificate}: {error.strerror or error}") from error
    return context
