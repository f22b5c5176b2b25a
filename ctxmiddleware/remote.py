"""Asking the admin of a running application, as the command line does."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Sequence
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import httpx2

from .bounded import read_limited
from .errors import ConfigurationError, ContextError
from .network import reason
from .principal import Identity
from .secret import Secret
from .shown import shown
from .tracebacks import sheltered
from .zones.threads import in_daemon_thread

TIMEOUT: Final = 10.0
MOST_BYTES: Final = 1024 * 1024
_ADDRESS: Final = "it is an http or https URL such as http://127.0.0.1:8000/api/admin/cache"
_INVISIBLE: Final = re.compile(r"[^\x21-\x7e]")


class AdminRefused(ContextError):
    """The admin did not do what it was asked; the message says why and what to do."""


class _Loop(asyncio.SelectorEventLoop):
    """Resolves host names in daemon threads: a lookup that hangs delays neither the end of the loop nor the exit."""

    async def getaddrinfo(self, host: bytes | str | None, port: bytes | str | int | None, **hints: int) -> list[Any]:
        return await in_daemon_thread("ctxmiddleware-dns", lambda _: socket.getaddrinfo(host, port, **hints))


class AdminClient:
    """Asks the admin at one address; each answer is returned as indented JSON.

    Args:
        url: where it is mounted, such as http://127.0.0.1:8000/api/admin/cache.
        token: what its guard lets in.
        timeout: seconds one question may take, from looking up the host's name to the last byte of the answer.

    Raises:
        ConfigurationError: the address is not an http or https URL, or no header can carry the token.
    """

    @sheltered
    def __init__(self, url: str, token: Secret, *, timeout: float = TIMEOUT) -> None:
        host = _host(url)
        if not token or _INVISIBLE.search(token.reveal()):
            raise ConfigurationError("the admin's token is empty, or holds white space or other than ASCII characters")
        self._url = url.rstrip("/")
        self._token = token
        self._timeout = timeout
        # No proxy can reach a process here by this name, and it would be given the token.
        self._by_proxy = not _is_loopback(host)

    def stats(self) -> str:
        """Return the counters of the process that answers."""
        return self._ask("GET", "stats")

    def clear(self) -> str:
        """Forget everybody and return the report."""
        return self._ask("POST", "clear")

    def invalidate(self, identities: Sequence[Identity], *, or_clear: bool = False) -> str:
        """Forget one user, or several, and return the report.

        Args:
            identities: the users.
            or_clear: whether too many of them become a clear of all.
        """
        users = [{each.key or "email": each.name, "tenant": each.tenant} for each in identities]
        sent = json.dumps(users[0] if len(users) == 1 else users).encode()
        return self._ask("POST", "invalidate?or_clear=true" if or_clear else "invalidate", sent)

    @sheltered
    def _ask(self, method: str, path: str, sent: bytes | None = None) -> str:
        try:
            status, body = anyio.run(self._answer, method, path, sent, backend_options={"loop_factory": _Loop})
        except (OSError, ValueError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            where = shown(self._url)
            raise AdminRefused(f"the admin at {where} cannot be reached: {_reason(error, self._timeout)}") from None
        if body is None:
            raise AdminRefused(f"what answers there is not the admin: its answer is longer than {MOST_BYTES} bytes")
        if status >= HTTPStatus.MULTIPLE_CHOICES:
            raise AdminRefused(_explained(status, body))
        return _indented(body)

    async def _answer(self, method: str, path: str, sent: bytes | None) -> tuple[int, bytes | None]:
        headers = {
            "Authorization": f"Bearer {self._token.reveal()}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        if sent is not None:
            headers["Content-Type"] = "application/json"
        unopened = _client(trust_env=self._by_proxy)
        with anyio.fail_after(self._timeout):
            async with (
                unopened as client,
                client.stream(method, f"{self._url}/{path}", content=sent, headers=headers) as response,
            ):
                return response.status_code, await read_limited(response.aiter_bytes(), MOST_BYTES)


def _host(url: str) -> str:
    """Return the host of the admin's address, which was found right; a refused one is shown where it is harmless."""
    try:
        if _INVISIBLE.search(url):
            raise ConfigurationError(
                f"the admin's address holds white space or other than ASCII characters; {_ADDRESS}"
            )
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"the admin's address was {shown(url)}; {_ADDRESS}") from None
    if "@" in parts.netloc:
        raise ConfigurationError(f"the admin's address holds a user or a password, and the token is enough; {_ADDRESS}")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise ConfigurationError(f"the admin's address was {shown(url)}; {_ADDRESS}")
    return host


def _is_loopback(host: str) -> bool:
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        # Numbers have more spellings than one: 127.1 is one of them.
        address = ip_address(name) if ":" in name else ip_address(socket.inet_aton(name))
    except (OSError, ValueError):
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def _client(*, trust_env: bool) -> httpx2.AsyncClient:
    """Return a client that follows no redirect, with which the token would go to another place."""
    try:
        # Loopback addresses are trusted by the certificates of the environment as well.
        tls = httpx2.create_ssl_context()
        return httpx2.AsyncClient(verify=tls, timeout=None, follow_redirects=False, trust_env=trust_env)
    except OSError as error:
        told = reason(error) or type(error).__name__
        raise AdminRefused(f"the certificates of SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {told}") from None
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        told = type(error).__name__
        raise AdminRefused(f"the proxy this environment names cannot be used ({told})") from None


def _reason(error: Exception, seconds: float) -> str:
    """Return why there was no answer, in words that cannot hold what was sent."""
    if isinstance(error, TimeoutError):
        return f"no whole answer within {seconds:g} s"
    if isinstance(error, httpx2.RemoteProtocolError):
        return f"what answers there does not speak HTTP, or was cut off ({type(error).__name__})"
    return reason(error) or type(error).__name__


def _indented(body: bytes) -> str:
    try:
        return json.dumps(json.loads(body), indent=2)
    except (ValueError, RecursionError):
        raise AdminRefused("what answers there is not the admin: its answer is not JSON") from None


def _explained(status: int, body: bytes) -> str:
    told, report = _told(body)
    if told is None:
        return f"{status}: what answers there is not the admin; give its address with --url"
    # Whoever answers there must not write to the terminal what a terminal obeys.
    line = "".join(each if each.isprintable() else "?" for each in told)
    return f"{status}: {line}" + ("" if report is None else f"\n{report}")


def _told(body: bytes) -> tuple[str | None, str | None]:
    """Return what a refusal says, and its report as indented JSON; None for what is not there."""
    try:
        answer = json.loads(body)
        told = (answer.get("detail") or answer.get("error")) if isinstance(answer, dict) else None
        report = answer.get("report") if isinstance(told, str) else None
        return (told if isinstance(told, str) else None), (None if report is None else json.dumps(report, indent=2))
    except (ValueError, RecursionError):
        return None, None
