"""Callbacks: a signed POST (Standard Webhooks) when an analysis has ended, tried for a day.

A callback is written in the transaction that ends its analysis, so none is lost; it is delivered at least once, and
the receiver knows a repetition by its `webhook-id`. Where to is the operator's list: a hospital's systems have private
addresses, so no rule about addresses could tell them from others. Proxies of the environment are not used.
"""

import asyncio
import base64
import ipaddress
import socket
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import httpx
from sqlalchemy import Engine, Row, select
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

from service import __version__
from service.errors import CallbackForbidden, SettingsInvalid
from service.hosts import PORTS, Host, is_listed, is_of_this_link, listed_hosts, spelled
from service.interop.delivery_errors import DeliveryFailed, DeliveryRejected
from service.store.callback_queue import claim, settle
from service.store.clock import is_due
from service.store.database import callbacks, reading
from service.store.settings import Settings

ATTEMPT_S: Final = 10.0  # one try, from the look-up of the name to the answer's status
AT_ONCE: Final = 16
SECRET_BYTES: Final = 24  # at least
GONE: Final = 410  # by which a receiver says: never again


def check_url(url: str, settings: Settings) -> None:
    """Refuse a `callback_url` that is none, or leads where no callback may go. Raises CallbackForbidden."""
    if signer(settings) is None:
        raise CallbackForbidden("this service makes no callbacks: MITOSIS_CALLBACK_SECRET is not set")
    _allowed(url, settings)


def _hosts(settings: Settings) -> tuple[Host, ...]:
    return listed_hosts(settings.callback_hosts, "MITOSIS_CALLBACK_HOSTS")


def signer(settings: Settings) -> Webhook | None:
    """Make what signs; None without a secret. Raises SettingsInvalid for an unusable secret."""
    if settings.callback_secret is None:
        return None
    secret = settings.callback_secret.get_secret_value()
    try:
        webhook, size = Webhook(secret), len(base64.b64decode(secret.removeprefix("whsec_")))
    except (ValueError, EmptyWebhookSecretError) as error:
        raise SettingsInvalid("MITOSIS_CALLBACK_SECRET is not `whsec_` and base64") from error
    if size < SECRET_BYTES:
        raise SettingsInvalid(f"MITOSIS_CALLBACK_SECRET has {size} bytes; Standard Webhooks asks for {SECRET_BYTES}")
    return webhook


def check_settings(settings: Settings) -> None:
    """Raise SettingsInvalid for an unusable secret or list of hosts; called when the service starts."""
    signer(settings)
    _hosts(settings)


def _allowed(url: str, settings: Settings) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
        host, port = spelled(parsed.raw_host), parsed.port
    except (httpx.InvalidURL, ValueError) as error:
        raise CallbackForbidden(f"callback_url is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not host:
        raise CallbackForbidden("callback_url must be http:// or https:// and a host")
    if parsed.userinfo:
        raise CallbackForbidden("callback_url must hold no user or password; callbacks are signed")
    port = port or PORTS[parsed.scheme]
    if not is_listed(host, port, _hosts(settings)):
        raise CallbackForbidden(f"{host}:{port} is not in MITOSIS_CALLBACK_HOSTS")
    return parsed


def post_due(engine: Engine, settings: Settings, now: float | None = None) -> int:
    """Try the callbacks that are due (Unix seconds), some at once; gives how many were delivered.

    Takes at most ATTEMPT_S and a little. Two processes may do so at the same time. Raises DatabaseUnavailable,
    SettingsInvalid.
    """
    now = time.time() if now is None else now
    due = (callbacks.c.status == "waiting") & is_due(callbacks.c.next_at, now)
    with reading(engine) as connection:
        rows = connection.execute(select(callbacks).where(due).order_by(callbacks.c.next_at).limit(AT_ONCE)).all()
    mine = [row for row in rows if claim(engine, row, now)]
    outcomes = asyncio.run(_post_all(mine, settings)) if mine else []
    return sum(
        settle(engine, row, str(failure) if failure else None, final=isinstance(failure, DeliveryRejected))
        for row, failure in zip(mine, outcomes, strict=True)
    )


async def _post_all(rows: Sequence[Row[Any]], settings: Settings) -> list[DeliveryFailed | None]:
    # the system's certificates: those of a hospital's own authority are there
    async with httpx.AsyncClient(verify=ssl.create_default_context(), trust_env=False) as client:
        return await asyncio.gather(*(_post(client, row, settings) for row in rows))


async def _post(client: httpx.AsyncClient, row: Row[Any], settings: Settings) -> DeliveryFailed | None:
    """Try once; gives why it failed, if it did."""
    try:
        async with asyncio.timeout(ATTEMPT_S):  # over all: httpx's own limits begin anew with every byte
            await _send(client, row, settings)
    except DeliveryFailed as failure:
        return failure
    except TimeoutError:
        return DeliveryFailed(f"no answer within {ATTEMPT_S:g} s")
    except (httpx.HTTPError, OSError) as error:
        return DeliveryFailed(f"{type(error).__name__}: {error}"[:500])
    return None


async def _send(client: httpx.AsyncClient, row: Row[Any], settings: Settings) -> None:
    webhook = signer(settings)
    if webhook is None:
        raise DeliveryFailed("MITOSIS_CALLBACK_SECRET is not set any more")
    try:
        url = _allowed(row.url, settings)
    except CallbackForbidden as error:
        raise DeliveryRejected(str(error)) from error
    address = await _resolve(url, row.attempts)
    at = datetime.now(UTC)
    headers = {
        "Host": url.netloc.decode("ascii"),
        "Content-Type": "application/json",
        "User-Agent": f"mitosis-service/{__version__}",
        "webhook-id": row.id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": webhook.sign(row.id, at, row.body),
    }
    # to the very address that was judged, so that a name cannot lead elsewhere the second time it is looked up
    pinned, names = url.copy_with(host=address), {"sni_hostname": spelled(url.raw_host)}
    async with client.stream("POST", pinned, content=row.body, headers=headers, extensions=names) as answer:
        if answer.status_code == GONE:
            raise DeliveryRejected("the receiver answered 410: never again")
        if not answer.is_success:
            raise DeliveryFailed(f"the receiver answered {answer.status_code}")


async def _resolve(url: httpx.URL, attempt: int) -> str:
    """Look up an address of a host, another one at each try.

    Raises DeliveryFailed where a name leads back to this machine, to the services of its link, or to many machines.
    """
    host, port = spelled(url.raw_host), url.port or PORTS[url.scheme]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    address = str(found[attempt % len(found)][4][0])
    local = ipaddress.ip_address(address.partition("%")[0]).is_loopback and host not in (address, "localhost")
    if local or is_of_this_link(address):
        raise DeliveryFailed(f"{host} is now {address}, where no callback goes")
    return address
