"""What an instance makes of what it hears from the channel: whom it forgets, and how far it trusts its memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from .keeping import Keeping
from .trust import Trust

V = TypeVar("V")


class Hearing(Generic[V]):
    """The `Listener` of one process: called from whichever thread listens.

    Args:
        trust: how far memory is trusted.
        keeping: what is in memory and in the air.
        clock: monotonic seconds.
    """

    def __init__(self, trust: Trust, keeping: Keeping[V], clock: Callable[[], float]) -> None:
        self._trust = trust
        self._keeping = keeping
        self._clock = clock

    @property
    def lasts(self) -> float:
        """Seconds that trust in memory lasts after the last proof that nothing was missed."""
        return self._trust.lasts

    @property
    def longest_untold(self) -> float:
        """Seconds after an invalidation within which this instance, if it missed it, stops serving older values."""
        return self._trust.longest_untold

    def now(self) -> float:
        """Return the monotonic second by which memory is trusted."""
        return self._clock()

    def forget(self, digest: bytes | None, generation: bytes | None, token: bytes) -> None:
        """Forget a name, or everyone where it is None, but for what was looked up under its new generation."""
        self._keeping.expected.end(digest, token)
        self._forget(digest, generation)

    def expect(self, digest: bytes | None, token: bytes) -> None:
        """Forget a name, or everyone, and keep nothing of them that is not looked up again until it has happened."""
        # Before anything is forgotten, or another thread could keep it again in between.
        self._keeping.expected.begin(digest, token, self._clock())
        self._forget(digest, None)

    def _forget(self, digest: bytes | None, generation: bytes | None) -> None:
        if digest is None:
            self._keeping.forget(None)
        else:
            self._keeping.forget_digest(digest, generation)

    def doubt(self, digest: bytes) -> None:
        """Ask again for a name before it is served."""
        self._keeping.doubt(digest)

    def told(self, at: float) -> None:
        """Look up again, behind the answers, whoever was looked up before a monotonic second."""
        self._trust.told(at)

    def missed(self) -> None:
        """Ask again for everybody before they are served."""
        self._keeping.missed()
        self._trust.end(self._clock())
        self._keeping.watchers.ring(None)

    def begun_anew(self) -> None:
        """Take all users for invalidated just now: which of them were, the shared tier has lost."""
        self._keeping.settling.hear(None)

    def left(self) -> None:
        """Serve nothing that was looked up before."""
        self._trust.leave(self._clock())

    def prove(self, at: float) -> None:
        """Trust memory for a while from a monotonic second at which nothing had been missed."""
        self._trust.prove(at)
