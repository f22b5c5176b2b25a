"""Whether a request that changes something was meant: a browser sends cookies along with what another site asks for."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
CUSTOM: Final = "x-requested-with"
_PORTS: Final = {"http": 80, "https": 443}


def is_meant(connection: HTTPConnection) -> bool:
    """Return whether a request was sent by this site's own pages, or by no page at all.

    A header of one's own cannot be sent to another site without its leave (a preflight). `Sec-Fetch-Site` and `Origin`
    are the browser's to write, and no page can change them (Fetch Metadata; RFC 6454, section 7).
    """
    if connection.scope.get("method", "GET") in SAFE:
        return True
    headers = connection.headers
    if headers.get(CUSTOM):
        return True
    sites, origins = headers.getlist("sec-fetch-site"), headers.getlist("origin")
    if len(sites) > 1 or len(origins) > 1:
        return False
    is_own = bool(origins) and _is_own(origins[0], headers, connection.scope.get("scheme", "http"))
    if sites:
        return sites[0] == "same-origin" and (is_own or not origins)
    return is_own


def _is_own(origin: str, headers: Headers, scheme: str) -> bool:
    hosts = headers.getlist("host")
    if len(hosts) != 1:
        return False
    # Where a proxy ends TLS the application sees http, and the browser's page is of https.
    return any(_place(origin) == _place(f"{each}://{hosts[0]}") is not None for each in {scheme, "https"})


def _place(url: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of an origin, or None where it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or parts.path or parts.query or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, port or _PORTS[parts.scheme]
