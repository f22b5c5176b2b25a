"""A shared tier in memory whose every command can be late, lost, or answered long after it was carried out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from ctxmiddleware.cache.base import Fence, Key, Stored
from ctxmiddleware.cache.incarnation import MARK_MS
from ctxmiddleware.cache.shared import (
    ASK,
    NOWHERE,
    Claim,
    Claiming,
    Listener,
    Look,
    Reach,
    Recalled,
    SharedTierFailed,
    Storing,
    Waiting,
)

Generation: TypeAlias = tuple[str, str]
"""Of whom it is: of everyone, as the bucket of a name holds it, or of the name."""


def _both(name: str) -> tuple[Generation, Generation]:
    return ("everyone", name), ("name", name)


@dataclass
class _Kept:
    fence: Fence
    stored: Stored[str]
    stored_at: float
    dies_at: float


@dataclass
class FakeServer:
    """What all instances share: generations, values and marks, and whether it can be reached."""

    clock: Callable[[], float]
    generations: dict[Generation, tuple[bytes, float]] = field(default_factory=dict)
    values: dict[Key, _Kept] = field(default_factory=dict)
    moved: dict[str | None, float] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    is_down: bool = False
    _tokens: itertools.count[int] = field(default_factory=itertools.count)

    def token(self) -> bytes:
        """Return a value never used before."""
        return b"%d" % next(self._tokens)

    def fence(self, name: str, keep_ms: int) -> Fence:
        """Return the generations in force, creating absent ones."""
        self.names.add(name)
        for which in _both(name):
            if self.in_force(which) is None:
                self.generations[which] = (self.token(), self.clock() + 2 * keep_ms / 1000)
            self.outlives(which, keep_ms / 1000)
        return Fence(*(self.generations[which][0] for which in _both(name)))

    def outlives(self, which: Generation, seconds: float) -> None:
        """Prolong a generation that would not live as long."""
        token, dies_at = self.generations[which]
        if dies_at - self.clock() < seconds:
            self.generations[which] = (token, self.clock() + 2 * seconds)

    def in_force(self, which: Generation) -> bytes | None:
        """Return a generation, or None where it is absent."""
        held = self.generations.get(which)
        return None if held is None or self.clock() >= held[1] else held[0]

    def is_in_force(self, name: str, fence: Fence) -> bool:
        """Return whether both generations are these."""
        return tuple(self.in_force(which) for which in _both(name)) == fence

    def renew(self, name: str | None, keep_ms: int) -> None:
        """Put a new generation in force."""
        renewed = self._of_everyone() if name is None else [("name", name)]
        for which in renewed:
            self.generations[which] = (self.token(), self.clock() + keep_ms / 1000)
        self.moved[name] = self.clock()

    def lose(self, name: str | None) -> None:
        """Lose a generation, as eviction does."""
        for which in self._of_everyone() if name is None else [("name", name)]:
            self.generations.pop(which, None)

    def _of_everyone(self) -> list[Generation]:
        return [("everyone", name) for name in self.names]

    def moved_ago(self, name: str) -> float:
        """Return the seconds since the name, or everyone, was invalidated."""
        ago = self.clock() - max(self.moved.get(each, -math.inf) for each in (None, name))
        return ago if ago < MARK_MS / 1000 else math.inf

    def flush(self) -> None:
        """Lose everything."""
        self.generations.clear()
        self.values.clear()
        self.moved.clear()

    def snapshot(self) -> FakeServer:
        """Return what a replica that lags, or a file, holds."""
        return replace(self, generations=dict(self.generations), values=dict(self.values), moved=dict(self.moved))

    def fail_over_to(self, older: FakeServer) -> None:
        """Take an older state; as every connection does, begin anew before anything is read from it."""
        self.generations, self.values = dict(older.generations), dict(older.values)
        self.moved = dict(older.moved)
        for which in self._of_everyone():
            if self.in_force(which) is not None:
                self.generations[which] = (self.token(), self.generations[which][1])
                self.moved[None] = self.clock()


class Nobody:
    """Hears nothing."""

    async def next(self, seconds: float) -> set[Key]:
        """Return nothing."""
        return set()


class FakeTier:
    """One instance's way to the server.

    Args:
        server: what it shares with the others.
        wait: where a command waits, before it is carried out and before it is answered.
        told: called when a look for a key is answered, with what `moment` gave when it was carried out.
        moment: tells the present from the past.
    """

    def __init__(
        self,
        server: FakeServer,
        wait: Callable[[], Awaitable[None]],
        told: Callable[[Key, int], None] = lambda key, moment: None,
        moment: Callable[[], int] = lambda: 0,
    ) -> None:
        self._server = server
        self._wait = wait
        self._told = told
        self._moment = moment

    async def look(self, keys: Sequence[Key], keep_ms: int) -> list[Look[str] | None]:
        """Return what it holds for each key."""
        await self._wait()
        if self._is_cut_off():
            return [None] * len(keys)
        found: list[Look[str] | None] = [self._look(key, keep_ms) for key in keys]
        moment = self._moment()
        await self._wait()
        if self._is_cut_off():
            return [None] * len(keys)
        for key in keys:
            self._told(key, moment)
        return found

    def _look(self, key: Key, keep_ms: int) -> Look[str]:
        server = self._server
        fence = server.fence(key[1], keep_ms)
        kept = server.values.get(key)
        stored = None
        if kept is not None and kept.fence == fence and server.clock() < kept.dies_at:
            stored = replace(kept.stored, age=kept.stored.age + server.clock() - kept.stored_at)
        return Look(fence, stored, server.moved_ago(key[1]))

    async def store(self, values: Sequence[Storing[str]]) -> list[bool | None]:
        """Keep each value whose generations are in force."""
        await self._wait()
        if self._is_cut_off():
            return [None] * len(values)
        kept: list[bool | None] = [self._store(value) for value in values]
        await self._wait()
        return [None] * len(values) if self._is_cut_off() else kept

    def _store(self, value: Storing[str]) -> bool:
        server = self._server
        if not server.is_in_force(value.key[1], value.fence):
            return False
        left = value.keep_ms / 1000 - value.stored.age
        if left > 0:
            server.values[value.key] = _Kept(value.fence, value.stored, server.clock(), server.clock() + left)
            for which in _both(value.key[1]):
                server.outlives(which, left)
        return True

    def listen(self, listener: Listener) -> None:
        """Tell an instance what is heard of the others."""
        self._listener = listener

    async def claim(self, wanted: Sequence[Claiming]) -> list[Claim]:
        """Let every instance load by itself."""
        return [ASK] * len(wanted)

    async def release(self, leases: Sequence[bytes]) -> None:
        """There are none."""

    def landings(self, keys: Sequence[Key]) -> AbstractContextManager[Waiting]:
        """Listen for nothing: there are no leases."""
        return nullcontext(Nobody())

    async def remember(self, keys: Sequence[Key]) -> None:
        """Remember nobody."""

    async def hottest(self, limit: int) -> Sequence[bytes]:
        """Return nobody."""
        return []

    async def recall(self, called: Sequence[bytes], keep_ms: int) -> Sequence[Recalled[str] | None]:
        """Return nobody's."""
        return [None] * len(called)

    async def invalidate(self, name: str | None, keep_ms: int) -> Reach:
        """Put a new generation in force; a reply that is lost is a failure, carried out or not."""
        await self._wait()
        if self._is_cut_off():
            raise SharedTierFailed("down")
        self._server.renew(name, keep_ms)
        await self._wait()
        if self._is_cut_off():
            raise SharedTierFailed("the reply was lost")
        return NOWHERE

    def _is_cut_off(self) -> bool:
        return self._server.is_down
