"""`mitosis keys`: make, list and revoke the bearer keys of the service's database."""

from typing import Annotated

import typer

from service.cli.options import DataDir, command_group
from service.cli.stores import open_stores, record_command
from service.store import keys
from service.store.clock import utc

keys_app = command_group("keys", "Bearer keys of the service.")


@keys_app.command("create")
def create_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is, for the list.")],
    scopes: Annotated[str, typer.Option(help="Of read, submit, review, admin (all), by commas.")] = "read,submit",
    tenant: Annotated[str, typer.Option(help="Whose slides and analyses it sees.")] = "default",
    data_dir: DataDir = None,
) -> None:
    """Make a key; its secret alone goes to standard output, once."""
    wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    _, engine = open_stores(data_dir, new=True)
    key_id, secret = keys.create(engine, name, tenant, wanted)
    record_command(engine, tenant, "create_key", key_id, name=name, scopes=wanted)
    typer.echo(secret)
    typer.echo(
        f"Key {key_id} of {name} (tenant {tenant}, {', '.join(wanted)}). Keep the secret: only its hash is stored.",
        err=True,
    )


@keys_app.command("list")
def list_command(data_dir: DataDir = None) -> None:
    """List all keys, revoked ones too; times are UTC."""
    _, engine = open_stores(data_dir)
    line = "{:<16}  {:<20}  {:<16}  {:<18}  {:<16}  {}"
    typer.echo(line.format("ID", "NAME", "TENANT", "SCOPES", "CREATED", "REVOKED").rstrip())
    for key in keys.list_all(engine):
        times = utc(key.created_at), utc(key.revoked_at)
        typer.echo(line.format(key.id, key.name, key.tenant, ",".join(sorted(key.scopes)), *times).rstrip())


@keys_app.command("revoke")
def revoke_command(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")], data_dir: DataDir = None
) -> None:
    """End a key's validity, at once and for good."""
    _, engine = open_stores(data_dir)
    keys.revoke(engine, key_id)
    record_command(engine, "", "revoke_key", key_id)
    typer.echo(f"Key {key_id} is revoked.", err=True)
