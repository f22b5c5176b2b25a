"""What the tier that a fleet shares must do, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

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
        name_moved_ago: seconds since the name was last invalidated by any instance; infinite where that is long ago.
        everyone_moved_ago: seconds since all names were.
        is_held: whether a `changing` block for the name is open.
        left_ms: milliseconds that whatever it holds there has left; negative where it holds nothing that ends.
    """

    fence: Fence
    stored: Stored[V] | None
    name_moved_ago: float = math.inf
    everyone_moved_ago: float = math.inf
    is_held: bool = False
    left_ms: int = -2

    @property
    def moved_ago(self) -> float:
        """Seconds since the name, or all names, were last invalidated."""
        return min(self.name_moved_ago, self.everyone_moved_ago)


@dataclass(frozen=True, slots=True)
class Storing(Generic[V]):
    """One value on its way into the shared tier.

    Args:
        key: whose it is.
        fence: the generations it was loaded under.
        stored: the value.
        keep_ms: milliseconds it is kept, counted from when its source was asked.
        lease: the lease of its load, which ends with it; empty where there is none.
        windows_ms: milliseconds after an invalidation of all names, and of the name, in which it was loaded and past
            which it is not kept; None where it was loaded long after.
    """

    key: Key
    fence: Fence
    stored: Stored[V]
    keep_ms: int
    lease: bytes = b""
    windows_ms: tuple[int | None, int | None] | None = None


@dataclass(frozen=True, slots=True)
class Reach:
    """How far an invalidation has come.

    Args:
        me: the name of this instance; empty where it has none.
        confirmed: instances that have forgotten, and the milliseconds after which each had said so.
        silent: instances that have not said so, and the seconds within which each stops serving what it had.
        knew: whether the shared tier had a generation of the name: it was looked up lately; None where that is unknown.
        unlisted: where the list of instances may be incomplete, the seconds within which one that is not in it stops,
            and why it may be.
    """

    me: str = ""
    confirmed: tuple[tuple[str, float], ...] = ()
    silent: tuple[tuple[str, float], ...] = ()
    unlisted: tuple[float, str] | None = None
    knew: bool | None = None


NOWHERE: Final = Reach()

# The hold of a process that died ends so long after its last renewal.
HELD_SECONDS: Final = 60.0


class Listener(Protocol):
    """Whoever is told what is heard from the channel, from any thread."""

    @property
    def lasts(self) -> float:
        """Seconds that trust in memory lasts after the last proof that nothing was missed."""
        ...

    @property
    def longest_untold(self) -> float:
        """Seconds after an invalidation within which an instance that missed it stops serving older values."""
        ...

    def now(self) -> float:
        """Return the monotonic second by which memory is trusted."""
        ...

    def forget(self, digest: bytes | None, generation: bytes | None, token: bytes) -> None:
        """A name, or everyone where it is None, was invalidated; its new generation where it is known."""
        ...

    def expect(self, digest: bytes | None, token: bytes) -> None:
        """A name, or everyone where it is None, will be invalidated at any moment, by an invalidation of that token."""
        ...

    def doubt(self, digest: bytes) -> None:
        """A name's generation was touched, by whomever."""
        ...

    def told(self, at: float) -> None:
        """From a monotonic second on it is told whose generation is touched; before it there may be a gap."""
        ...

    def missed(self) -> None:
        """News were missed, nobody knows which."""
        ...

    def begun_anew(self) -> None:
        """The shared tier has lost which names were invalidated lately."""
        ...

    def left(self) -> None:
        """No report counts this instance in any more."""
        ...

    def prove(self, at: float) -> None:
        """Nothing had been missed at a monotonic second."""
        ...


@dataclass(frozen=True, slots=True)
class Claiming:
    """A load that an instance wants to make.

    Args:
        key: what for.
        fence: the generations it would be made under.
        left_ms: milliseconds that what was found had left; one that was stored since then has more.
        is_over: says whether it has ended.
    """

    key: Key
    fence: Fence
    left_ms: int
    is_over: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Claim:
    """What became of it.

    Args:
        lease: what is given back with the value, or where there is none; empty where nobody knows of the load.
        wait: seconds that another instance's lease of the same load has left; 0 where the load may be made.
        again: whether to look again: a load has landed, or an invalidation has come, since it was looked for.
    """

    lease: bytes = b""
    wait: float = 0.0
    again: bool = False


ASK: Final = Claim()
AGAIN: Final = Claim(again=True)


@dataclass(frozen=True, slots=True)
class Recalled(Generic[V]):
    """A value that was found without knowing for whom it was asked.

    Args:
        key: whose it is.
        look: what was found for it; it has a stored value.
        stored: that value.
    """

    key: Key
    look: Look[V]
    stored: Stored[V]


class Waiting(Protocol):
    """Somebody who waits for loads of other instances."""

    async def next(self, seconds: float) -> set[Key]:
        """Wait so many seconds at most, and return the keys whose loads have landed since the last call."""
        ...


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

    def listen(self, listener: Listener) -> None:
        """Tell an instance what is heard of the others from now on; called once, before anything else."""
        ...

    @property
    def is_listed(self) -> bool:
        """Whether the reports of other instances count this one in, for as long as it may serve what it gets now."""
        ...

    async def claim(self, wanted: Sequence[Claiming]) -> list[Claim]:
        """Return of each load whether it may be made here, or for how long to wait for another instance's."""
        ...

    async def release(self, leases: Sequence[bytes]) -> None:
        """Give back the leases of loads that brought nothing to store."""
        ...

    def landings(self, keys: Sequence[Key]) -> AbstractContextManager[Waiting]:
        """Listen for loads of these keys by other instances; begun before they are claimed."""
        ...

    async def remember(self, keys: Sequence[Key]) -> None:
        """Take note that an instance was asked for these users."""
        ...

    async def hottest(self, limit: int) -> Sequence[bytes]:
        """Return what those are called whom the fleet was asked for last, the last first."""
        ...

    async def recall(self, called: Sequence[bytes], keep_ms: int) -> Sequence[Recalled[V] | None]:
        """Return what it holds of each of them under the generations in force."""
        ...

    async def mark(self, names: Sequence[str] | None) -> bool:
        """Let names, or everyone where it is None, count as invalidated just now; return whether they are sure to."""
        ...

    async def renew(self, names: Sequence[str] | None, keep_ms: int, known_silent: Collection[str]) -> Reach:
        """Do what `invalidate` does, of many names in one trip; the instances known to be silent are not waited for."""
        ...

    async def hold(self, names: Sequence[str], holder: bytes) -> list[bool]:
        """Let no instance keep what it loads of these names for `HELD_SECONDS`, or until the holder releases them.

        Returns:
            for each, whether this holder held it already.

        Raises:
            SharedTierFailed: it did not confirm it.
        """
        ...

    async def let_go(self, names: Sequence[str], holder: bytes) -> None:
        """Take back what `hold` has begun.

        Raises:
            SharedTierFailed: it did not confirm it.
        """
        ...

    async def invalidate(self, name: str | None, keep_ms: int, partitions: Sequence[str] = ()) -> Reach:
        """Put a new generation in force for a name, or for everyone where it is None, and tell the other instances.

        Args:
            name: the name.
            keep_ms: milliseconds a generation lives.
            partitions: in which the name may have values: those are removed at once.

        Returns:
            which of them have confirmed it.

        Raises:
            SharedTierFailed: it did not say that it has.
        """
        ...
