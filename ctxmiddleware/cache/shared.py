"""What the tier that a fleet shares must do, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ..errors import ContextError
from .base import Fence, Key, Stored

V = TypeVar("V")


class SharedTierFailed(ContextError):
    """An invalidation did not reach the tier the fleet shares; `dropped` is how many entries memory has forgotten."""

    dropped = 0


@dataclass(frozen=True, slots=True)
class Look(Generic[V]):
    """What the shared tier answered for one key.

    Args:
        fence: the generations in force.
        stored: what it holds that was stored under them.
        moved_ago: seconds since the name was last invalidated by anybody; infinite where that is long ago.
    """

    fence: Fence
    stored: Stored[V] | None
    moved_ago: float = math.inf


@dataclass(frozen=True, slots=True)
class Storing(Generic[V]):
    """One value on its way into the shared tier.

    Args:
        key: whose it is.
        fence: the generations it was loaded under.
        stored: the value.
        keep_ms: milliseconds it is kept, counted from when its source was asked.
    """

    key: Key
    fence: Fence
    stored: Stored[V]
    keep_ms: int


class SharedTier(Protocol[V]):
    """The tier a fleet shares. Its faults are never exceptions, except where an invalidation did not reach it."""

    async def look(self, keys: Sequence[Key], keep_ms: int) -> list[Look[V] | None]:
        """Return what it holds for each key, creating absent generations; None for those it cannot answer now.

        Args:
            keys: whom to look for, each once.
            keep_ms: milliseconds a generation has to live on at least.
        """
        ...

    async def store(self, values: Sequence[Storing[V]]) -> list[bool | None]:
        """Keep each value, if there is time left to keep it for, and if its generations are still in force.

        Returns:
            for each, False where its generations have moved on, None where nobody knows.
        """
        ...

    async def invalidate(self, name: str | None, keep_ms: int) -> None:
        """Put a new generation in force for a name, or for everyone where it is None.

        Raises:
            SharedTierFailed: it did not say that it has.
        """
        ...
