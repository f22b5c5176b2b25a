"""Whose invalidation is under way elsewhere: of what is looked up meanwhile nobody knows on which side of it it is."""

from __future__ import annotations

from typing import Final

from .names import digest_of

# An invalidation is over, or has failed, long before that.
EXPECTED_SECONDS: Final = 10.0


class Expected:
    """Invalidations that were announced and have not happened yet.

    Several of one name may be under way at a time: each is expected until it has happened itself. One thread at a time
    hears of them, and any may ask.
    """

    def __init__(self) -> None:
        self._until: dict[bytes | None, dict[bytes, float]] = {}

    def begin(self, digest: bytes | None, token: bytes, now: float) -> None:
        """Expect an invalidation of a name, or of everyone where it is None, from a monotonic second on."""
        for each, tokens in list(self._until.items()):
            self._set(each, {token: until for token, until in tokens.items() if now < until})
        self._set(digest, {**self._until.get(digest, {}), token: now + EXPECTED_SECONDS})

    def end(self, digest: bytes | None, token: bytes) -> None:
        """Take note that one has happened."""
        self._set(digest, {each: until for each, until in self._until.get(digest, {}).items() if each != token})

    def holds(self, name: str, now: float) -> bool:
        """Return whether one of a name, or of everyone, is expected at a monotonic second."""
        if not self._until:
            return False
        return any(now < until for each in (None, digest_of(name)) for until in self._until.get(each, {}).values())

    def _set(self, digest: bytes | None, tokens: dict[bytes, float]) -> None:
        # Replaced and never changed: another thread may be reading it.
        if tokens:
            self._until[digest] = tokens
        else:
            self._until.pop(digest, None)
