"""Connections to public addresses only: a name is looked up once, and only what was checked is connected to."""

import errno
import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

UNICAST = ip_network("2000::/3")  # all that is assigned: https://www.iana.org/assignments/ipv6-address-space
DOCUMENTATION = ip_network("3fff::/20")
PORTS = frozenset({443, 8443})


HOST = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9-]{1,63}|[0-9a-f:.]+", re.IGNORECASE)
CONNECTIONS = 100  # as many as the queue's activities at once


class NotPublic(OSError):
    """The address is private, local or reserved."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EACCES, message)  # aiohttp quotes only an OSError's strerror

    def __str__(self) -> str:
        """The message, without the number."""
        return self.strerror or ""


class PublicAddresses:
    """Judges addresses; `allowed` networks are exempt."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._allowed = tuple(ip_network(each) for each in allowed)

    def exempt(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether an operator allowed it."""
        return any(address.version == network.version and address in network for network in self._allowed)

    def usable(self, text: str) -> bool:
        """Whether this IP address may be connected to."""
        address = ip_address(text.partition("%")[0])
        if self.exempt(address):
            return True
        if isinstance(address, IPv6Address) and (
            address not in UNICAST or address in DOCUMENTATION or address.sixtofour or address.teredo
        ):
            return False  # the others carry IPv4 addresses, or are not routed
        return address.is_global and not address.is_multicast

    def check(self, url: str) -> str:
        """Judge what can be judged before the name is looked up; the host.

        Raises:
            NotPublic: a literal address that is not public, no https, a user name, or an unusual port.
        """
        try:
            parts = httpx.URL(url)  # reads a host as the request will
        except (httpx.InvalidURL, UnicodeError) as error:
            msg = f"a webhook must be an https URL: {error}"
            raise NotPublic(msg) from error
        host = parts.raw_host.decode("ascii", "replace").strip("[]")
        literal = _literal(host)
        if literal is not None:
            if not self.usable(str(literal)):
                msg = f"{NotPublic.__name__}: webhooks reach public addresses only, not {host}"
                raise NotPublic(msg)
            if self.exempt(literal):
                return host
        port = 443 if parts.port is None else parts.port
        if parts.scheme != "https" or parts.userinfo or port not in PORTS or not HOST.fullmatch(host):
            msg = "a webhook must be an https URL on port 443 or 8443 without a user name"
            raise NotPublic(msg)
        return host

    def connector(self) -> aiohttp.BaseConnector:
        """A connector that looks names up through these rules."""
        return aiohttp.TCPConnector(resolver=_Resolver(self), limit=CONNECTIONS, keepalive_timeout=30, ttl_dns_cache=10)


class _Resolver(AbstractResolver):
    def __init__(self, rules: PublicAddresses) -> None:
        self._rules = rules
        self._system: ThreadedResolver | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self._system = self._system or ThreadedResolver()
        found = await self._system.resolve(host, port, family)
        usable = [each for each in found if self._rules.usable(each["host"])]
        if not usable:
            msg = f"{NotPublic.__name__}: {host} has no public address"
            raise NotPublic(msg)
        return usable

    async def close(self) -> None:
        if self._system is not None:
            await self._system.close()


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address a host is, in any notation that a resolver takes for one, such as 0x7f.1 or 2130706433."""
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None
