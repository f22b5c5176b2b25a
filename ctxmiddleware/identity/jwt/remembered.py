"""Tokens that were verified lately, so that a hit costs no signature check."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable
from typing import NamedTuple

from ... import forking
from ...principal import Identity


class _Known(NamedTuple):
    identity: Identity
    expires_at: float
    until: float


class Remembered:
    """Whom verified tokens name, by digests that only this process can make; bounded, the oldest leaves first.

    Args:
        size: how many.
        wall_clock: seconds since the epoch, for what tokens say of themselves.
        clock: monotonic seconds, for how long the keys are good.
    """

    def __init__(self, size: int, wall_clock: Callable[[], float], clock: Callable[[], float]) -> None:
        self._size = size
        self._wall_clock = wall_clock
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self.begin_anew()
        forking.register(self)

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        return f"<Remembered: {len(self)} tokens>"

    def begin_anew(self) -> None:
        """Forget all in a forked process."""
        self._lock = threading.Lock()
        self._known: dict[bytes, _Known] = {}

    def get(self, token: str) -> Identity | None:
        """Return whom a token names, or None where it has to be verified."""
        known = self._known.get(self._digest(token))
        if known is None or self._clock() >= known.until or self._wall_clock() >= known.expires_at:
            return None
        return known.identity

    def put(self, token: str, identity: Identity, until: float) -> None:
        """Remember a verified token.

        Args:
            token: the token.
            identity: whom it names, and until when.
            until: monotonic seconds.
        """
        if identity.expires_at is None or self._clock() >= until:
            return
        with self._lock:
            digest = self._digest(token)
            self._known.pop(digest, None)
            while len(self._known) >= self._size:
                del self._known[next(iter(self._known))]
            self._known[digest] = _Known(identity, identity.expires_at, until)

    def clear(self) -> None:
        """Forget all: other keys are in force."""
        with self._lock:
            self._known = {}

    def _digest(self, token: str) -> bytes:
        return hashlib.blake2b(token.encode("latin-1", "replace"), digest_size=32, key=self._secret).digest()
