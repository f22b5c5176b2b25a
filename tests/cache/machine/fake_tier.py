"""A shared tier in memory whose every command can be late, lost, or answered long after it was carried out."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TypeVar

from ctxmiddleware.cache.base import Key
from ctxmiddleware.cache.names import digest_of
from ctxmiddleware.cache.redis.announcing import Announcement
from ctxmiddleware.cache.redis.channel import Channel, Follower
from ctxmiddleware.cache.redis.lua.channel import Roll
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
from ctxmiddleware.stats import Counters

from .fake_channel import Announced, Kind
from .fake_ear import FakeEar
from .fake_server import FakeServer, Kept, both

T = TypeVar("T")


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
        me: the instance's name in the fleet.
        version: what the model takes note of when an invalidation begins.
        confirm_timeout: seconds an invalidation waits for those who listen.
        bumped: told, with its token, that an invalidation has put its generation in force.
        heard: told of an announcement that has arrived, and whether it was taken.
        doubted: told of a name whose generation was touched, and the model's version.
        lost: told that Redis may have lost what was invalidated just before.
    """

    def __init__(
        self,
        server: FakeServer,
        wait: Callable[[], Awaitable[None]],
        told: Callable[[Key, int], None] = lambda key, moment: None,
        moment: Callable[[], int] = lambda: 0,
        *,
        me: str = "",
        version: Callable[[], int] = lambda: 0,
        confirm_timeout: float = 0.25,
        bumped: Callable[[bytes], None] = lambda token: None,
        heard: Callable[[Announced, bool], None] = lambda announced, taken: None,
        doubted: Callable[[bytes, int | None], None] = lambda digest, version: None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._server = server
        self._lost = lost
        self._is_checked = False
        self.me = me
        self._version = version
        self._confirm_timeout = confirm_timeout
        self._bumped = bumped
        self._heard = heard
        self._doubted = doubted
        # As in a cluster, where the generations are on another server than the channel.
        self.in_steps = False
        self.channel = Channel(lambda names: None, server.clock)
        self.ear: FakeEar | None = None
        # What nobody has to tell this instance: it began it, and it has not failed.
        self._own: set[bytes] = set()
        self._wait = wait
        self._told = told
        self._moment = moment

    async def look(self, keys: Sequence[Key], keep_ms: int) -> list[Look[str] | None]:
        """Return what it holds for each key."""
        await self._wait()
        if self._is_cut_off():
            return [None] * len(keys)
        self._check()
        found: list[Look[str] | None] = [self._look(key, keep_ms) for key in keys]
        moment = self._moment()
        await self._wait()
        if self._is_cut_off():
            return [None] * len(keys)
        for key in keys:
            self._told(key, moment)
        return found

    def _check(self) -> None:
        if not self._is_checked:
            self._server.admit()
            self._is_checked = True
            self._lost()

    def _look(self, key: Key, keep_ms: int) -> Look[str]:
        server = self._server
        fence = server.fence(key[1], keep_ms)
        kept = server.values.get(key)
        stored = None
        if kept is not None and kept.fence == fence and server.clock() < kept.dies_at:
            stored = replace(kept.stored, age=kept.stored.age + server.clock() - kept.stored_at)
        return Look(fence, stored, server.moved_ago(key[1]), server.moved_ago(None), server.is_held(key[1]))

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
        if value.windows_ms is not None:
            ago = server.moved_ago(None), server.moved_ago(value.key[1])
            windows = zip(value.windows_ms, ago, strict=True)
            left = min([left, *(ms / 1000 - each for ms, each in windows if ms is not None)])
        if left > 0:
            server.values[value.key] = Kept(value.fence, value.stored, server.clock(), server.clock() + left)
            for which in both(value.key[1]):
                server.outlives(which, left)
        return True

    def listen(self, listener: Listener) -> None:
        """Tell an instance what is heard of the others, by an ear that is moved on by hand."""
        follower = Follower(listener, Counters(), self.channel.own)
        self.channel.longest_untold = listener.longest_untold
        self.ear = FakeEar(
            self._server.channel,
            self.channel,
            follower,
            self.me,
            lambda: not self._is_cut_off(),
            lambda announced, taken: None if announced.token in self._own else self._heard(announced, taken),
            self._doubted,
            self._lost,
        )

    @property
    def is_listed(self) -> bool:
        """Whether the reports of the others count this instance in."""
        return self.ear is None or self.channel.is_listed()

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

    async def mark(self, names: Sequence[str] | None) -> bool:
        """Let names, or everyone, count as invalidated just now, unless the command or its reply is lost."""
        with contextlib.suppress(SharedTierFailed):
            await self._do(lambda: self._server.mark(names))
            return True
        return False

    async def renew(self, names: Sequence[str] | None, keep_ms: int, known_silent: Collection[str]) -> Reach:
        """Do what `invalidate` does, of many names."""
        reach = NOWHERE
        for name in [None] if names is None else names:
            version, token = self._version(), self._server.token()
            self._own.add(token)
            with Announcement(self.channel, token, self.me, self._confirm_timeout) as announcement:
                await self._carry_out(announcement, name, keep_ms, version)
                reach = await announcement.reach(known_silent)
        return reach

    async def hold(self, names: Sequence[str], holder: bytes) -> list[bool]:
        """Hold names; a reply that is lost is a failure."""
        return await self._do(lambda: [self._server.hold(name, holder) for name in names])

    async def let_go(self, names: Sequence[str], holder: bytes) -> None:
        """Hold names no more."""
        await self._do(lambda: [self._server.holds.get(name, {}).pop(holder, None) for name in names])

    async def invalidate(self, name: str | None, keep_ms: int, partitions: Sequence[str] = ()) -> Reach:
        """Put a new generation in force; a reply that is lost is a failure, carried out now, later or never."""
        version, token = self._version(), self._server.token()
        self._own.add(token)
        try:
            with Announcement(self.channel, token, self.me, self._confirm_timeout) as announcement:
                await self._carry_out(announcement, name, keep_ms, version)
                return await announcement.reach()
        except BaseException:
            self._own.discard(token)
            raise

    async def _carry_out(self, announcement: Announcement, name: str | None, keep_ms: int, version: int) -> None:
        token = announcement.token
        if not self.in_steps:
            announcement.roll = await self._do(lambda: self._renew_and_announce(name, keep_ms, token, version))
            return
        await self._do(lambda: self._announce("intent", name, b"", token, version))
        generation = await self._do(lambda: self._renew(name, keep_ms, token, version))
        announcement.roll = await self._do(lambda: self._announce("done", name, generation, token, version))

    async def _do(self, command: Callable[[], T]) -> T:
        await self._wait()
        if self._is_cut_off():
            # What was on its way when the connection was lost may arrive all the same.
            self._server.late.append(command)
            raise SharedTierFailed("down")
        answer = command()
        await self._wait()
        if self._is_cut_off():
            raise SharedTierFailed("the reply was lost")
        return answer

    def _renew_and_announce(self, name: str | None, keep_ms: int, token: bytes, version: int) -> Roll:
        generation = self._renew(name, keep_ms, token, version)
        return self._announce("done", name, generation, token, version)

    def _renew(self, name: str | None, keep_ms: int, token: bytes, version: int) -> bytes:
        generation = self._server.renew(name, keep_ms, version)
        self._bumped(token)
        return generation

    def _announce(self, kind: Kind, name: str | None, generation: bytes, token: bytes, version: int) -> Roll:
        digest = b"" if name is None else digest_of(name)
        return self._server.channel.announce(kind, digest, generation, token, self.me, version)

    def _is_cut_off(self) -> bool:
        if self._server.is_down:
            self._is_checked = False
        return self._server.is_down
