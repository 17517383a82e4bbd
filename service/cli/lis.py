"""`mitosis lis`: orders from the laboratory's system, and what waits on the way to it."""

import asyncio
import ssl
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from sqlalchemy import Engine, Row

from service.cli.options import DataDir, Key, command_group
from service.cli.stores import command_line_user, open_stores, record_command
from service.errors import ParameterInvalid
from service.interop.hl7_answers import answers, require_store, too_large
from service.interop.lis_mapping import read_mapping
from service.interop.mllp import Listener, networks
from service.refusals import KeyRequired, ScopeMissing
from service.review import Reviewer
from service.store import holds, keys, orders, outbox
from service.store.clock import utc
from service.store.logs import set_up_logs

lis_app = command_group("lis", "Orders in and results out.")

PersonName = Annotated[str, typer.Option("--name", metavar="NAME", help="Who decides: Family, Given.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit log.")]
Hold = Annotated[str, typer.Argument(metavar="HOLD", help="As `held` shows it.")]
Number = Annotated[int, typer.Argument(metavar="NUMBER", min=1, max=2**31 - 1, help="As `queue` shows it.")]


@lis_app.command("listen")
def listen_command(
    host: Annotated[
        str, typer.Option(help="Address to listen on; who may send, MITOSIS_LIS_ALLOW says.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 2575,
    certificate: Annotated[Optional[Path], typer.Option(metavar="FILE", help="PEM, for TLS.")] = None,
    certificate_key: Annotated[Optional[Path], typer.Option(metavar="FILE", help="PEM, if not in the other.")] = None,
    clients: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="Authorities (PEM) that senders' certificates must be of.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Take orders by HL7 v2 over MLLP; they wait for their slides in the service's database."""
    settings, engine = open_stores(data_dir, new=True)
    tls = _tls(certificate, certificate_key, clients)
    mapping = read_mapping(settings.lis_mapping)
    listener = Listener(
        lambda content: answers(engine, content, settings.lis_tenant, settings.lis_charset, mapping),
        too_large,
        networks(settings.lis_allow),
        check=lambda: require_store(engine),
    )
    set_up_logs("lis")
    try:
        asyncio.run(listener.listen(host, port, lambda found: typer.echo(f"Listening on {host}:{found}"), tls))
    except OSError as error:
        raise ParameterInvalid(f"{host}:{port}: {error.strerror or error}") from error


@lis_app.command("queue")
def queue_command(data_dir: DataDir = None) -> None:
    """List what waits to be sent or was refused, in order, with its last error; times are UTC."""
    _, engine = open_stores(data_dir)
    line = "{:<8}  {:<8}  {:<8}  {:<36}  {:>8}  {:>5}  {:<16}  {:<16}  {}"
    typer.echo(
        line.format("NUMBER", "CHANNEL", "STATUS", "ANALYSIS", "REVISION", "TRIES", "SINCE", "NEXT TRY", "LAST ERROR")
    )
    for row in outbox.undelivered(engine):
        following = utc(row.next_at) if row.status == "waiting" else ""
        facts = (row.id, row.channel, row.status, row.analysis_id, row.revision, row.attempts, utc(row.created_at))
        typer.echo(line.format(*facts, following, row.last_error or "").rstrip())


@lis_app.command("retry")
def retry_command(number: Number, data_dir: DataDir = None) -> None:
    """Try one now, also if it was refused; not where a later version of that result is there already."""
    _, engine = open_stores(data_dir)
    _record(engine, "retry_result", outbox.retry(engine, number))
    typer.echo(f"{number} is tried again.", err=True)


@lis_app.command("drop")
def drop_command(number: Number, data_dir: DataDir = None) -> None:
    """Give one up for good, so that what waits behind it goes on."""
    _, engine = open_stores(data_dir)
    _record(engine, "drop_result", outbox.drop(engine, number))
    typer.echo(f"{number} is dropped.", err=True)


@lis_app.command("orders")
def orders_command(data_dir: DataDir = None) -> None:
    """List orders of all tenants whose slide has not come; times are UTC."""
    _, engine = open_stores(data_dir)
    line = "{:<36}  {:<16}  {:<16}  {:<8}  {:<3}  {:<24}  {:<24}  {:<24}  {}"
    typer.echo(line.format("ID", "TENANT", "SINCE", "STATUS", "FOR", "SLIDE", "NUMBER", "ASSIGNER", "LAST MESSAGE"))
    for row in orders.waiting(engine):
        facts = (row.id, row.tenant, utc(row.created_at), row.status, row.processing_id, row.identifier, row.number)
        typer.echo(line.format(*facts, row.assigner, row.message))


@lis_app.command("held")
def held_command(data_dir: DataDir = None) -> None:
    """List results of all tenants that are not sent, as sources do not agree on the patient; times are UTC."""
    _, engine = open_stores(data_dir)
    line = "{:<12}  {:<16}  {:<36}  {:<16}  {:<18}  {:<36}  {}"
    typer.echo(line.format("HOLD", "TENANT", "ANALYSIS", "SINCE", "CONFLICT", "OTHER ORDER", "WHAT"))
    for row in holds.held_results(engine):
        for each in row.held["reasons"]:
            facts = (row.held["id"], row.tenant, row.id, utc(row.held["since"]), each["code"], each["order_id"] or "")
            typer.echo(line.format(*facts, each["detail"]))


@lis_app.command("release")
def release_command(hold: Hold, name: PersonName, reason: Reason, key: Key = None, data_dir: DataDir = None) -> None:
    """Send a held result for the order that it has; asks for a key of scope `review`."""
    _, engine = open_stores(data_dir)
    row = holds.find_held(engine, hold)
    holds.release(engine, row.id, row.tenant, hold, _reviewer(engine, row.tenant, name, key), reason)
    typer.echo(f"{hold} is released.", err=True)


@lis_app.command("assign")
def assign_command(
    hold: Hold,
    order: Annotated[str, typer.Argument(metavar="ORDER", help="As `held` or `orders` shows it.")],
    name: PersonName,
    reason: Reason,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Give a held result to another order: taken back where it was told, then told anew, unsigned; asks for a key."""
    _, engine = open_stores(data_dir)
    row = holds.find_held(engine, hold)
    holds.assign(engine, row.id, row.tenant, order, hold, _reviewer(engine, row.tenant, name, key), reason)
    typer.echo(f"{hold} is given to order {order}.", err=True)


def _reviewer(engine: Engine, tenant: str, name: str, secret: str | None) -> Reviewer:
    """Find out who decides. Raises KeyRequired, ScopeMissing."""
    found = keys.find(engine, secret) if secret else None
    if found is None and (secret or keys.exist(engine)):
        raise KeyRequired("this needs a valid key of scope `review`, in MITOSIS_KEY")
    if found is not None and (found.tenant != tenant or not found.scopes & {"review", "admin"}):
        raise ScopeMissing(f"this key has no scope 'review' for {tenant}")
    return Reviewer(name, None, found.id if found is not None else command_line_user())


def _record(engine: Engine, action: str, row: Row[Any]) -> None:
    facts = {"number": row.id, "channel": row.channel, "revision": row.revision}
    record_command(engine, row.tenant, action, row.analysis_id, **facts)


def _tls(certificate: Path | None, key: Path | None, clients: Path | None) -> ssl.SSLContext | None:
    """Make the listener's TLS; None where it has no certificate. Raises ParameterInvalid."""
    if certificate is None:
        if clients is not None:
            raise ParameterInvalid("--clients asks senders for certificates, which takes TLS: give --certificate too")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # SSLError is one
        raise ParameterInvalid(f"{certificate}: {error.strerror or error}") from error
    if clients is not None:
        try:
            context.load_verify_locations(clients)
        except OSError as error:
            raise ParameterInvalid(f"{clients}: {error.strerror or error}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context
