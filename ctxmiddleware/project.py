"""The address of a Supabase project, read by one rule: its origin, and the roots of its REST and auth interfaces."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import SplitResult, urlsplit

from .errors import ConfigurationError

_REST: Final = "/rest/v1"
_AUTH: Final = "/auth/v1"
_BLANK: Final = re.compile(r"[\x00-\x20\x7f]")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Project:
    """Where a project is. Equal for all spellings of one address (RFC 3986, section 6.2.3).

    Args:
        origin: scheme and host in lower case, and the port where it is not the scheme's own.
    """

    origin: str

    @classmethod
    def parse(cls, url: object, name: str = "SUPABASE_URL") -> Self:
        """Read an address, with or without `/rest/v1`.

        Args:
            url: the address.
            name: of the variable, for the error.

        Raises:
            ConfigurationError: it is no project's address.
        """
        faults = address_faults(name, url)
        parts = _split(url)
        if faults or parts is None:
            raise ConfigurationError(*faults)
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        port = "" if parts.port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{parts.port}"
        return cls(f"{parts.scheme}://{host}{port}")

    def __str__(self) -> str:
        return self.origin

    @property
    def rest(self) -> str:
        """The root of the REST interface."""
        return f"{self.origin}{_REST}"

    @property
    def issuer(self) -> str:
        """The root of the auth interface, which is the `iss` of the users' tokens."""
        return f"{self.origin}{_AUTH}"

    @property
    def jwks_url(self) -> str:
        """Where the project publishes the keys of the users' tokens."""
        return f"{self.issuer}/.well-known/jwks.json"


def address_faults(name: str, url: object) -> list[str]:
    """Return what is wrong with the address of a project, in sentences that begin with its name."""
    if isinstance(url, Project):
        return []
    parts = _split(url)
    if parts is None:
        return [f"{name} is not an address: it must be like https://<project>.supabase.co"]
    faults = []
    if parts.username is not None or parts.password is not None:
        faults.append(f"{name} holds a user or a password: the key goes in SUPABASE_KEY")
    if parts.query or parts.fragment:
        faults.append(f"{name} holds a query or a fragment: it must end after the host")
    if parts.path.rstrip("/") not in {"", _REST}:
        faults.append(f"{name} holds a path: it must end after the host, or with {_REST}")
    return faults


def _split(url: object) -> SplitResult | None:
    """Return the parts of an http or https URL, or None where it is none."""
    if isinstance(url, Project):
        url = url.origin
    if not isinstance(url, str) or _BLANK.search(url):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it checks it
    except ValueError:
        return None
    return parts if parts.hostname and parts.scheme in _DEFAULT_PORTS else None
