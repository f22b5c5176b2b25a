"""How far memory is trusted beside a tier that a fleet shares: a deadline that the channel moves on."""

from __future__ import annotations

import math
from typing import TypeVar

from .base import Entry

V = TypeVar("V")

NO_EPOCH = -1
"""The epoch of an entry that nothing but a look into the shared tier makes trusted again."""


def own_epoch(epoch: int) -> int:
    """Return the epoch of an entry that was loaded without a look into the shared tier.

    The channel vouches for what Redis has shown. Of anything else it is not known on which side of an invalidation it
    is: it is trusted for its own time, and no longer.
    """
    return -2 - epoch


def _epoch_of(epoch: int) -> int:
    return epoch if epoch >= 0 else -2 - epoch


class Trust:
    """Until when memory may answer by itself.

    An entry is trusted until the later of what its own look proved and what the channel has proven since, plus
    `lasts`; and not at all once news were missed, which begins another epoch: a flush of everybody that costs nothing.
    Generations that somebody touches by hand are told of over one connection only: what was looked up before that was
    made is served, and looked up again behind the answer.

    Args:
        lasts: seconds trust lasts after a proof.
        longest_untold: seconds after an invalidation within which an instance that missed it stops serving older
            values.
    """

    __slots__ = ("ended_at", "epoch", "lasts", "left_at", "left_epoch", "longest_untold", "told_from", "until")

    def __init__(self, lasts: float, longest_untold: float = 0.0) -> None:
        self.lasts = lasts
        self.longest_untold = max(lasts, longest_untold)
        self.epoch = 0
        self.until = -math.inf
        self.ended_at = math.inf
        self.left_at = -math.inf
        self.left_epoch = 0
        self.told_from = -math.inf

    def __repr__(self) -> str:
        return f"<Trust: epoch {self.epoch}, until {self.until:g}>"

    def of(self, entry: Entry[V]) -> float:
        """Return the monotonic second until which an entry is, or was, trusted."""
        until = self.until  # before the epoch, as in `judge`
        if entry.epoch == self.epoch:
            return max(entry.trusted_until, until)
        if entry.epoch == NO_EPOCH:
            return entry.trusted_until if entry.trusted_until > self.left_at else -math.inf
        if entry.epoch == own_epoch(self.epoch):
            return entry.trusted_until
        return min(entry.trusted_until, self.ended_at) if _epoch_of(entry.epoch) >= self.left_epoch else -math.inf

    def vouches(self, entry: Entry[V], now: float) -> bool:
        """Return whether the channel alone says at a monotonic second that no news of an entry were missed."""
        until = self.until  # before the epoch, as in `judge`
        return entry.epoch == self.epoch and now < until

    def prove(self, at: float) -> None:
        """Take note that at this monotonic second nothing had been missed."""
        self.until = max(self.until, at + self.lasts)

    def told(self, at: float) -> None:
        """Take note that from this monotonic second on it is told whose generation is touched.

        An entry knows when it was looked up by how long that made it trusted.
        """
        self.told_from = at + self.lasts

    def leave(self, now: float) -> None:
        """Serve nothing any more that was looked up before: no report counts this instance in from now on."""
        self.until = -math.inf
        self.ended_at = self.left_at = now
        # In this order, or a thread could take an entry of the former epoch for one that may stand in.
        self.left_epoch = self.epoch + 1
        self.epoch += 1

    def has_left_since(self, epoch: int) -> bool:
        """Return whether this instance has left the list since an epoch."""
        return epoch < self.left_epoch

    def end(self, now: float) -> None:
        """Trust nothing any more that was looked up before: news were missed."""
        # In this order, or a thread could trust an entry of the former epoch by a proof of the new one.
        self.until = -math.inf
        self.ended_at = now
        self.epoch += 1
