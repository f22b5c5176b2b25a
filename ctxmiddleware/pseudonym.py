"""What stands for a user in logs: a keyed hash, which cannot be computed or tried out without the key."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

from .errors import ConfigurationError
from .principal import Identity
from .secret import Secret
from .tracebacks import sheltered

LEAST_KEY_BYTES: Final = 16
_LENGTH: Final = 16


class Pseudonyms:
    """Names users in logs by HMAC-SHA-256 (RFC 2104) of the address or subject they are keyed by, cut to 64 bits.

    The tenant has no part in it, so that the lines about one address in several tenants can be found together.

    Args:
        key: 16 bytes or more, the same in every process and for `ctxmiddleware hash`; with None each process has a key
            of its own, so that its lines about one user can be told together, and nobody can tell whose they are.

    Raises:
        ConfigurationError: the key is too short.
    """

    @sheltered
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

    def of(self, identity: Identity) -> str:
        """Return what stands for a user."""
        return self.of_name(identity.cache_key[1])

    def of_name(self, name: str) -> str:
        """Return what stands for the user whose cache key has a name."""
        data = name.encode()
        return hmac.new(self._key, data, hashlib.sha256).hexdigest()[:_LENGTH]
