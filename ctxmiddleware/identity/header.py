"""Who asks, as a header says that a proxy in front has written."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

from starlette.types import Scope

from ..address import is_legible
from ..errors import ConfigurationError
from ..principal import Identity, Kind, subject_fault
from .credential import BadCredential, OnBad, checked_answer
from .headers import sent
from .naming import Naming, check_naming
from .rejection import Rejection, note_rejection

logger = logging.getLogger("ctxmiddleware.identity")

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# RFC 9110, section 5.6.2.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PORT: Final = re.compile(r"(?P<v4>[0-9.]+):[0-9]+|\[(?P<v6>[^\]]+)\](?::[0-9]+)?")


class TrustedHeader:
    """Identifies by a header that a proxy writes once it has signed a user in, such as `X-Forwarded-Email`.

    It counts only where the proxy itself has sent the request: the peer of the connection is one of `peers`, or the
    request came through proxies of `through`, each of which says in `X-Forwarded-For` whom it had it from; those are
    walked from the right, and the first that is none of them must be one of `peers`. Whatever is further left anybody
    may have written. The proxy must take the header away from what its own clients send.

    Let the server leave `client` as it is (uvicorn: `--no-proxy-headers`): rewritten from a header it is anybody's.

    Args:
        header: its name.
        peers: addresses or networks of the proxies that write it.
        through: addresses or networks of proxies between those and the application.
        unix_socket: whether connections without a peer's address, by a unix socket, are trusted.
        kind: what it holds: the user's `"email"`, or a `"subject"`, which is taken as it is.
        tenant: the tenant of all these users.
        on_bad: what a request is whose header is there twice or names nobody: `"anonymous"`, or to `"refuse"` with a
            401. From anybody else the header is not looked at.

    Raises:
        ConfigurationError: it cannot work so; every fault is named.
    """

    def __init__(
        self,
        header: str,
        *,
        peers: Iterable[str] = (),
        through: Iterable[str] = (),
        unix_socket: bool = False,
        kind: Kind = "email",
        tenant: str | None = None,
        on_bad: OnBad = "anonymous",
    ) -> None:
        faults = [] if isinstance(header, str) and _NAME.fullmatch(header) else [f"header was {header!r}; it is a name"]
        self._peers, self._through = _networks("peers", peers, faults), _networks("through", through, faults)
        if not self._peers and not unix_socket:
            faults.append("TrustedHeader needs peers, the addresses of whoever writes the header, or unix_socket=True")
        faults += check_naming(kind, tenant)
        if faults:
            raise ConfigurationError(*faults)
        self.naming: Final = Naming(kind, tenant)
        self._is_refusing = checked_answer(on_bad) == "refuse"
        self._header = header.lower().encode()
        self._unix_socket = unix_socket
        self._tenant = tenant or ""
        self._untrusted = (
            f"the header {header.lower()} came from a peer that is not among `peers`, and is not believed: list the "
            "proxy that writes it, or let it take the header away from requests of its clients"
        )

    def __repr__(self) -> str:
        return f"TrustedHeader({self._header.decode()!r})"

    def __call__(self, scope: Scope) -> Identity | None:
        """Return whom the header names, or None where nobody has written it who may.

        Raises:
            BadCredential: it is no good, and such requests are refused.
        """
        values = sent(scope, self._header)
        if not values:
            return None
        if not self._is_trusted(scope):
            note_rejection(scope, Rejection("untrusted peer", self._untrusted, is_foreign=True))
            return None
        name = _text(values[0]) if len(values) == 1 else None
        if name is not None and self.naming.kind == "subject" and subject_fault(name) is None:
            return Identity(subject=name, tenant=self._tenant)
        if name is not None and self.naming.kind == "email" and is_legible(name):
            return Identity(name, tenant=self._tenant)
        fault = "it names nobody" if len(values) == 1 else "it is there more than once"
        logger.debug("a trusted header is no good: %s", fault)
        reason = f"the header {self._header.decode()}: {fault}"
        note_rejection(scope, Rejection("malformed", f"{reason}; compare it with the header that the proxy writes"))
        if self._is_refusing:
            raise BadCredential(reason, fault="malformed", error=None)
        return None

    def _is_trusted(self, scope: Scope) -> bool:
        client = scope.get("client")
        if not client:
            return self._unix_socket
        hops = [str(client[0])]
        if self._through:
            chain = b",".join(sent(scope, b"x-forwarded-for")).decode("latin-1")
            hops += [hop for hop in reversed(chain.split(",")) if chain]
        for hop in hops:
            address = _address(hop)
            if address is None:
                return False
            if _is_in(address, self._peers):
                return True
            if not _is_in(address, self._through):
                return False
        return False


def _text(value: bytes) -> str | None:
    """Return the name in a header, or None where it is none."""
    try:
        name = value.decode("utf-8").strip(" \t")
    except UnicodeDecodeError:
        return None
    # Two headers of one name that a proxy has joined have a comma between them.
    return name if name and "," not in name else None


def _address(text: str) -> Address | None:
    text = text.strip()
    port = _PORT.fullmatch(text)
    if port is not None:
        text = port["v4"] or port["v6"]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _networks(argument: str, given: Iterable[str], faults: list[str]) -> list[Network]:
    if isinstance(given, str):
        faults.append(f"{argument} was the text {given!r}; it is a list of addresses")
        return []
    found = []
    for each in given:
        try:
            network = ip_network(each)
        except (ValueError, TypeError):
            faults.append(f"{argument} held {each!r}; it is an address or a network, such as 10.0.0.0/8")
            continue
        if network.prefixlen == 0:
            faults.append(f"{argument} held {each!r}, which is everybody: the header would be anybody's to write")
        found.append(network)
    return found
