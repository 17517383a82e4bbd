"""Hosts that the operator lists, and where the name of another one may lead.

A root names a host, and whoever answers for that name decides where it leads: to this machine, to one beside it, or by
a redirect wherever they like. So the address that is connected to is judged, and not the name; a redirect is refused;
and a host that is to be an exception is listed. An address that the operator has written into a root is one as well.
"""

import ipaddress
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeAlias

import fsspec

from service.errors import SettingsInvalid, SourceForbidden

ENTRY: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:/@*\[\]\s]+)(:(?P<port>\d{1,5}))?")
URI_HOSTS: Final = "MITOSIS_URI_HOSTS"
PORTS: Final = {"http": 80, "https": 443}
Host: TypeAlias = tuple[str, int | None]  # in one spelling; None: any port


def listed_hosts(entries: Sequence[str], setting: str = URI_HOSTS) -> tuple[Host, ...]:
    """Read the operator's list: `host`, `host:port` or `[ipv6]:port`. Raises SettingsInvalid."""
    return tuple(_listed(entry, setting) for entry in entries)


def _listed(entry: str, setting: str) -> Host:
    import httpx

    if match := ENTRY.fullmatch(entry):
        port = int(match["port"]) if match["port"] else None
        with suppress(httpx.InvalidURL, ValueError):
            host = spelled(httpx.URL(f"http://{match['host']}/").raw_host)
            if port is None or 0 < port < 1 << 16:
                return host, port
    raise SettingsInvalid(f"{setting}: {entry!r} is neither `host` nor `host:port` nor `[ipv6]:port`")


def spelled(raw_host: bytes) -> str:
    """Give a URL's host in one spelling: lower case, IDNA, no dot at its end."""
    return raw_host.decode("ascii").lower().rstrip(".")


def is_listed(host: str, port: int, hosts: Sequence[Host]) -> bool:
    """Tell whether a host, in one spelling, is on the operator's list."""
    return any(name == host and only in (None, port) for name, only in hosts)


def is_of_this_link(address: str) -> bool:
    """Tell whether an address is one of the services of a link (cloud metadata), of many machines, or of none."""
    ip = _ip(address)
    return ip.is_link_local or ip.is_multicast or ip.is_unspecified


def is_public(address: str) -> bool:
    """Tell whether an address leads to one machine of the internet."""
    return _ip(address).is_global and not is_of_this_link(address)


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    ip = ipaddress.ip_address(address.partition("%")[0])
    return getattr(ip, "ipv4_mapped", None) or ip


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a host: 127.0.0.0/8, ::1, localhost and the names below it."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def may_lead_to(host: str, port: int, address: str, hosts: Sequence[Host]) -> bool:
    """Tell whether a host of a `uri` may be connected to at an address."""
    if host in (address, "localhost"):  # the operator's own words
        return True
    return is_public(address) or (is_listed(host, port, hosts) and not is_of_this_link(address))


def find_address(host: str, port: int, hosts: Sequence[Host]) -> str:
    """Look up an address that a host of a `uri` may have. Raises SourceForbidden, and OSError where there is none."""
    found = [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in found:
        if may_lead_to(host, port, address, hosts):
            return address
    raise _private(host)


def _private(host: str) -> SourceForbidden:
    return SourceForbidden(f"{host} has a private address; the operator may list it in {URI_HOSTS}")


def guard_urls(hosts: Sequence[Host]) -> None:
    """Have all that this process reads by HTTP come from where the URL says, and from no private address."""
    for protocol in PORTS:
        fsspec.config.conf.setdefault(protocol, {})["get_client"] = partial(_guarded_client, tuple(hosts))


async def _guarded_client(hosts: Sequence[Host], **options: Any) -> Any:
    """Make the client that fsspec reads with. Its answers raise SourceForbidden where they lead elsewhere."""
    import aiohttp
    from aiohttp.resolver import ThreadedResolver
    from yarl import URL

    class Resolver(ThreadedResolver):
        """Gives the addresses that may be connected to."""

        async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
            found = await super().resolve(host, port, family)
            allowed = [each for each in found if may_lead_to(host.lower().rstrip("."), port, each["host"], hosts)]
            if not allowed:
                raise _private(host)
            return allowed

    async def refuse_redirects(request: Any, send: Any) -> Any:
        answer = await send(request)
        if not 300 <= answer.status < 400 or answer.status == 304:
            return answer
        with suppress(ValueError):
            target = request.url.join(URL(answer.headers.get("Location", "")))
            if target.host and is_listed(target.host.lower(), target.port or 0, hosts):
                return answer
        answer.close()
        raise SourceForbidden(f"{request.url.host} redirects elsewhere; the operator may list hosts in {URI_HOSTS}")

    connector = aiohttp.TCPConnector(resolver=Resolver())
    return aiohttp.ClientSession(connector=connector, middlewares=(refuse_redirects,), **options)
