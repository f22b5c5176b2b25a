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

    `Sec-Fetch-Site` and `Origin` are the browser's to write, and no page can change them (Fetch Metadata; RFC 6454,
    section 7): what they say of another site, or of nobody known, no further header makes good. A header of one's own
    cannot be sent to another site without its leave, which an application's CORS may have given to many; so it counts
    where the browser says nothing, and where it says "same-origin" of an origin that a proxy has renamed.
    """
    if connection.scope.get("method", "GET") in SAFE:
        return True
    headers = connection.headers
    sites, origins = headers.getlist("sec-fetch-site"), headers.getlist("origin")
    if len(sites) > 1 or len(origins) > 1 or (sites and sites[0] != "same-origin"):
        return False
    if origins and _is_own(origins[0], headers, connection.scope.get("scheme", "http")):
        return True
    if origins and not sites:
        return False
    return bool(headers.get(CUSTOM)) or (bool(sites) and not origins)


def way_out(connection: HTTPConnection) -> str:
    """Return what to do about a request that was not meant, as far as can be told."""
    headers = connection.headers
    sites = headers.getlist("sec-fetch-site")
    if any(site != "same-origin" for site in sites):
        return "what changes something has to come from this site's own pages, and the browser says that it does not"
    if headers.getlist("origin") and not sites:
        return "what changes something has to come from this site's own pages: Origin is not this Host's"
    return f"what changes something needs a header {CUSTOM.title()}, or to come from this site's own pages"


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
