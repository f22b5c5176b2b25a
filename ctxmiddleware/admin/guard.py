"""Who may use the admin."""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable
from typing import Final, Protocol

from starlette.requests import HTTPConnection

from ..errors import ConfigurationError
from ..secret import Secret
from ..tracebacks import sheltered

# As long as what 16 random characters of base64 are: at a million guesses a second, 10^15 years.
LEAST_LENGTH: Final = 16

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class AdminGuard(Protocol):
    """Says whether a connection may use the admin. Sync or async; an exception is a refusal.

    What it may have beside that: `actor`, a word for whoever it lets in, in the audit log; `user_of(connection)`, the
    Identity or the address of that user, of which only a keyed hash is logged; `is_explicit`, True where a browser does
    not send by itself what it looks at: without that, a request that changes something has to come from the site's own
    pages, or with a header `X-Requested-With`; and `cannot_be_guessed`, True where trying is no use: without that,
    nobody is looked at for a while who comes from where many attempts have failed.
    """

    def __call__(self, connection: HTTPConnection, /) -> bool | Awaitable[bool]:
        """Return whether the connection may."""
        ...


class BearerToken:
    """Lets in whoever sends `Authorization: Bearer <token>`, compared in constant time.

    Args:
        token: the secret: 16 characters or more, and random ones, because it is looked at however often others failed.

    Raises:
        ConfigurationError: the token is empty or short, or no header can carry it as it is.
    """

    actor: Final = "token"
    is_explicit: Final = True
    cannot_be_guessed: Final = True

    @sheltered
    def __init__(self, token: Secret | str) -> None:
        self._token = _checked(token)

    def __repr__(self) -> str:
        return "BearerToken(Secret('**********'))"

    def __call__(self, connection: HTTPConnection) -> bool:
        """Return whether the connection carries the token, in exactly one Authorization header."""
        headers = connection.headers.getlist("authorization")
        scheme, _, given = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
        # A header's text is its bytes read as latin-1; the variable's text is its bytes read as UTF-8.
        sent = given.strip(" \t").encode("latin-1")
        expected = self._token.reveal().encode("utf-8", "surrogateescape")
        # Compared even where the scheme is wrong, so that the time tells nothing about which part was.
        matches = hmac.compare_digest(sent, expected)
        return matches and scheme.lower() == "bearer"


def _checked(token: object) -> Secret:
    if isinstance(token, Secret):
        secret = token
    elif isinstance(token, str):
        secret = Secret(token)
    else:
        raise ConfigurationError(f"the admin's token was {type(token).__name__}: give a string or a Secret")
    if fault := _fault(secret):
        raise ConfigurationError(f"the admin's token {fault}")
    return secret


def _fault(token: Secret) -> str | None:
    # In a frame of its own: what collects errors keeps the locals of the frames that raised them.
    text = token.reveal()
    if not text:
        return "is empty: leave the guard out to keep the admin closed"
    if len(text) < LEAST_LENGTH:
        return f"is shorter than {LEAST_LENGTH} characters, and could be guessed"
    if text != text.strip():
        return "begins or ends with white space, which no header can carry"
    if _CONTROL.search(text):
        return "holds a line's end or another control character, which no header can carry"
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return "holds characters that cannot be written as bytes"
    return None
