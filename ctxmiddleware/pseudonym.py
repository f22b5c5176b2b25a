"""What stands for a user in logs: a keyed hash of the address, which nobody without the key can compute or try out."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

from .address import normalise
from .errors import ConfigurationError
from .secret import Secret

LEAST_KEY_BYTES: Final = 16
_LENGTH: Final = 16


class Pseudonyms:
    """Names users in logs by HMAC-SHA-256 (RFC 2104) of their normalised addresses, cut to 64 bits.

    Args:
        key: 16 bytes or more, the same in every process and for `ctxmiddleware hash`; with None each process has a key
            of its own, so that its lines about one user can be told together, and nobody can tell whose they are.

    Raises:
        ConfigurationError: the key is too short.
    """

    def __init__(self, key: Secret | str | None = None) -> None:
        if key is None:
            self._key = secrets.token_bytes(32)
            return
        text = key.reveal() if isinstance(key, Secret) else key
        self._key = text.encode("utf-8", "surrogateescape")
        del text
        if len(self._key) < LEAST_KEY_BYTES:
            raise ConfigurationError(f"log_key is shorter than {LEAST_KEY_BYTES} bytes: it could be guessed")

    def __repr__(self) -> str:
        return "<Pseudonyms>"

    def of(self, email: str) -> str:
        """Return what stands for an address, in any spelling of it."""
        data = normalise(email).encode("utf-8", "surrogatepass")
        return hmac.new(self._key, data, hashlib.sha256).hexdigest()[:_LENGTH]
