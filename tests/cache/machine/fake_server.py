"""The server behind the state machine's tiers, in memory: generations, values, marks and the channel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from ctxmiddleware.cache.base import Fence, Key, Stored
from ctxmiddleware.cache.names import digest_of
from ctxmiddleware.cache.redis.incarnation import MARK_MS
from ctxmiddleware.cache.shared import HELD_SECONDS

from .fake_channel import FakeChannel

Generation: TypeAlias = tuple[str, str]
"""Of whom it is: of everyone, as the bucket of a name holds it, or of the name."""


def both(name: str) -> tuple[Generation, Generation]:
    """Return whose generations a name has."""
    return ("everyone", name), ("name", name)


@dataclass
class Kept:
    """A value, and under which generations it is kept until when."""

    fence: Fence
    stored: Stored[str]
    stored_at: float
    dies_at: float


@dataclass
class FakeServer:
    """What all instances share: generations, values and marks, and whether it can be reached."""

    clock: Callable[[], float]
    generations: dict[Generation, tuple[bytes, float]] = field(default_factory=dict)
    values: dict[Key, Kept] = field(default_factory=dict)
    moved: dict[str | None, float] = field(default_factory=dict)
    holds: dict[str, dict[bytes, float]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    moves: list[tuple[float, str | None]] = field(default_factory=list)
    is_down: bool = False
    is_named: bool = False
    late: list[Callable[[], object]] = field(default_factory=list)
    _tokens: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.channel = FakeChannel(self.clock, self.token)

    def token(self) -> bytes:
        """Return a value never used before."""
        return b"%d" % next(self._tokens)

    def fence(self, name: str, keep_ms: int) -> Fence:
        """Return the generations in force, creating absent ones."""
        self.names.add(name)
        for which in both(name):
            if self.in_force(which) is None:
                self.generations[which] = (self.token(), self.clock() + 2 * keep_ms / 1000)
                self._touched(which)
            self.outlives(which, keep_ms / 1000)
        return Fence(*(self.generations[which][0] for which in both(name)))

    def outlives(self, which: Generation, seconds: float) -> None:
        """Prolong a generation that would not live as long."""
        token, dies_at = self.generations[which]
        if dies_at - self.clock() < seconds:
            self.generations[which] = (token, self.clock() + 2 * seconds)
            self._touched(which)

    def _touched(self, which: Generation, version: int | None = None) -> None:
        if which[0] == "name":
            self.channel.touched(digest_of(which[1]), version)

    def in_force(self, which: Generation) -> bytes | None:
        """Return a generation, or None where it is absent."""
        held = self.generations.get(which)
        return None if held is None or self.clock() >= held[1] else held[0]

    def is_in_force(self, name: str, fence: Fence) -> bool:
        """Return whether both generations are these."""
        return tuple(self.in_force(which) for which in both(name)) == fence

    def renew(self, name: str | None, keep_ms: int, version: int = 0) -> bytes:
        """Put a new generation in force where there is one, and return it where it is a name's."""
        renewed = self._of_everyone() if name is None else [("name", name)]
        generation = b""
        for which in renewed:
            if self.in_force(which) is None:
                continue
            generation = self.token()
            self.generations[which] = (generation, self.clock() + keep_ms / 1000)
            self._touched(which, version)
        self.moved[name] = self.clock()
        self.moves.append((self.clock(), name))
        return b"" if name is None else generation

    def lose(self, name: str | None) -> None:
        """Lose a generation, as eviction does."""
        for which in self._of_everyone() if name is None else [("name", name)]:
            if self.generations.pop(which, None) is not None:
                self._touched(which)

    def _of_everyone(self) -> list[Generation]:
        return [("everyone", name) for name in self.names]

    def moved_ago(self, name: str | None) -> float:
        """Return the seconds since the name, or everyone, was invalidated."""
        ago = self.clock() - self.moved.get(name, -math.inf)
        return ago if ago < MARK_MS / 1000 else math.inf

    def mark(self, names: Sequence[str] | None) -> None:
        """Mark names, or all names, as invalidated just now."""
        for name in [None] if names is None else names:
            self.moved[name] = self.clock()

    def hold(self, name: str, holder: bytes) -> bool:
        """Hold a name for a while, and return whether this holder held it already."""
        holders = self.holds.setdefault(name, {})
        held = self.clock() < holders.get(holder, -math.inf)
        holders[holder] = self.clock() + HELD_SECONDS
        return held

    def is_held(self, name: str) -> bool:
        """Return whether a holder that has not ended holds a name."""
        return any(self.clock() < until for until in self.holds.get(name, {}).values())

    def flush(self) -> None:
        """Lose everything."""
        self.generations.clear()
        self.values.clear()
        self.moved.clear()
        self.holds.clear()
        self.is_named = False
        self.channel.flush()

    def admit(self) -> None:
        """Take everyone for invalidated just now where it has lost its name; a connection that is new does so first."""
        if not self.is_named:
            self.moved[None] = self.clock()
            self.moves.append((self.clock(), None))
            self.is_named = True

    def snapshot(self) -> FakeServer:
        """Return what a replica that lags, or a file, holds."""
        copy = replace(self, generations=dict(self.generations), values=dict(self.values), moved=dict(self.moved))
        copy.holds = {name: dict(holders) for name, holders in self.holds.items()}
        copy.channel = self.channel.snapshot()
        return copy

    def fail_over_to(self, older: FakeServer) -> None:
        """Take an older state; as every connection does, begin anew before anything is read from it."""
        self.generations, self.values = dict(older.generations), dict(older.values)
        self.moved = dict(older.moved)
        self.holds = {name: dict(holders) for name, holders in older.holds.items()}
        for which in self._of_everyone():
            if self.in_force(which) is not None:
                self.generations[which] = (self.token(), self.generations[which][1])
        # Which names were invalidated lately may be lost.
        self.moved[None] = self.clock()
        self.is_named = True
        self.channel.fail_over_to(older.channel)
        self.late.clear()

    def cut_off(self) -> None:
        """Let nobody reach it."""
        self.is_down = True
        self.channel.cut_off()
