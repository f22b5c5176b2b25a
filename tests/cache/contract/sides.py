"""The two tiers under one contract, and what can befall the server behind each."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, Protocol, TypeAlias
from unittest.mock import patch

import anyio
import anyio.lowlevel
import redis

from ctxmiddleware.cache.base import Key
from ctxmiddleware.cache.redis.incarnation import KEPT_MS
from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.cache.redis.session import Session
from ctxmiddleware.cache.shared import SharedTier
from ctxmiddleware.testing import FakeClock
from examples.servers import Valkey
from tests.cache.machine.fake_server import FakeServer
from tests.cache.machine.fake_tier import FakeTier
from tests.cache.rig import PATIENT, outlast_marks, redis_tier
from tests.cache.switch import Switch
from tests.waiting import eventually_async

# Nothing here is about time running out: a slow machine must not look like a fault.
OPTIONS = replace(PATIENT, probe_every=0.02, check_every=3600.0)
NOBODY: list[Key] = [("", "nobody"), ("", "nobody else")]


class Recorder:
    """A listener that writes down what it is told."""

    # A quarter of it is the time between two beats of the channel.
    lasts = 0.4
    longest_untold = 1.0

    def __init__(self) -> None:
        self.forgotten: list[tuple[bytes | None, bytes | None]] = []
        self.doubted: set[bytes] = set()
        self.misses = 0
        self.proven_at = -math.inf

    def now(self) -> float:
        """Return the time by which it is told of proofs."""
        return time.monotonic()

    def forget(self, digest: bytes | None, generation: bytes | None, token: bytes) -> None:
        """A name, or everyone, was invalidated."""
        self.forgotten.append((digest, generation))

    def expect(self, digest: bytes | None, token: bytes) -> None:
        """A name, or everyone, will be invalidated."""

    def told(self, at: float) -> None:
        """It is told whose generation is touched."""

    def doubt(self, digest: bytes) -> None:
        """A name's generation was touched."""
        self.doubted.add(digest)

    def begun_anew(self) -> None:
        """Note nothing: what settles is the cache's."""

    def left(self) -> None:
        """Note nothing: what is served is the cache's."""

    def missed(self) -> None:
        """News were missed."""
        self.misses += 1

    def prove(self, at: float) -> None:
        """Nothing had been missed."""
        self.proven_at = at


class Side(Protocol):
    """Two instances' ways to one server, their names and what they hear, and the server's fate."""

    one: SharedTier[str]
    other: SharedTier[str]
    names: tuple[str, str]
    ears: tuple[Recorder, Recorder]

    def pass_time(self, seconds: float) -> None:
        """Let whatever has a time to live be so much older."""

    def flush(self) -> None:
        """Lose everything but which server it is: a connection that is made at some time afterwards finds that out."""

    def lose(self, name: str | None) -> None:
        """Lose the generation of a name, or everyone's."""

    def outlast_marks(self) -> None:
        """Let marks end, as after an hour."""

    def snapshot(self) -> None:
        """Remember the state as it is."""

    def fail_over(self) -> None:
        """Let a server take over that has the state last remembered."""

    def cut_off(self) -> None:
        """Let nobody reach the server."""

    async def reach_again(self) -> None:
        """Let everybody reach it again."""


async def connected(side: Side) -> bool:
    """Let each instance have the two connections it will use; return whether it has.

    To an instance that connects for the first time, a server that has been emptied is one that it does not know.
    """
    looks = [await tier.look(keys, 1_250) for tier in (side.one, side.other) for keys in (NOBODY, NOBODY[:1])]
    return not any(None in each for each in looks)


class FakeSide:
    """The tier in memory."""

    def __init__(self) -> None:
        self._clock = FakeClock()
        self._server = FakeServer(self._clock)
        self._older = self._server.snapshot()
        wait = anyio.lowlevel.checkpoint
        tiers = [FakeTier(self._server, wait, me=name) for name in ("one", "other")]
        self.one: SharedTier[str] = tiers[0]
        self.other: SharedTier[str] = tiers[1]
        self.names = "one", "other"
        self.ears = Recorder(), Recorder()
        for tier, ear in zip(tiers, self.ears, strict=True):
            tier.listen(ear)
        self._tiers = tiers
        self.pass_time = self._clock.advance
        self.lose = self._server.lose
        self.outlast_marks = self._server.moved.clear

    def flush(self) -> None:
        """Lose everything but which server it is."""
        self._server.flush()
        self._server.is_named = True

    def snapshot(self) -> None:
        """Remember the state as it is."""
        self._older = self._server.snapshot()

    def fail_over(self) -> None:
        """Take the state last remembered."""
        self._server.fail_over_to(self._older)

    def cut_off(self) -> None:
        """Answer nobody."""
        self._server.cut_off()

    async def listen(self) -> None:
        """Listen all the time, as the real one does by itself."""
        while True:
            for tier in self._tiers:
                assert tier.ear is not None
                tier.ear.hear()
            await anyio.sleep(0.001)

    async def reach_again(self) -> None:
        """Answer again."""
        self._server.is_down = False
        await connected(self)


class RedisSide:
    """The real tier, over real servers; at a failover a new one is started."""

    def __init__(self, servers: ExitStack) -> None:
        self._servers = servers
        self._client: Any = None
        self._switch = servers.enter_context(Switch.start("127.0.0.1", self._start().port))
        self._shifted = -time.monotonic()
        self._now = 0.0
        self._remembered: list[tuple[bytes, float, bytes]] = []
        tiers = [redis_tier(self._switch.url, options=OPTIONS) for _ in range(2)]
        self.one: SharedTier[str] = tiers[0]
        self.other: SharedTier[str] = tiers[1]
        self.names = tiers[0].instance, tiers[1].instance
        self.ears = Recorder(), Recorder()
        for tier, ear in zip(tiers, self.ears, strict=True):
            tier.listen(ear)
        self.opened = [tier.opened for tier in tiers]
        self._keys = KeySpace("test", tiers[0].codec.shape)

    def _start(self) -> Valkey:
        server = self._servers.enter_context(Valkey.start())
        self._url = server.url
        self._client = self._servers.enter_context(redis.Redis.from_url(server.url))
        return server

    def pass_time(self, seconds: float) -> None:
        """Shorten all that has a time to live, less by what the test itself has taken: no clock of a server moves."""
        self._now += seconds
        shift = self._now - (time.monotonic() + self._shifted)
        self._shifted += shift
        for key in self._client.scan_iter():
            left = self._client.pttl(key)
            # What an instance knows of the server is as old as its own clock says, and that is not moved.
            if left >= 0 and key.decode() not in self._keys.incarnation():
                self._client.pexpire(key, round(left - shift * 1000))

    def flush(self) -> None:
        """Lose everything but which server it is."""
        key = self._keys.incarnation()[0]
        name = self._client.get(key)
        self._client.flushall()
        self._client.set(key, name, px=KEPT_MS)

    def lose(self, name: str | None) -> None:
        """Lose the generation of a name, or everyone's."""
        everyone = [generation for generation, _ in self._keys.everyone()]
        self._client.delete(*everyone if name is None else [self._keys.of(("", name)).generation])

    def outlast_marks(self) -> None:
        """Delete marks."""
        outlast_marks(self._url)

    def snapshot(self) -> None:
        """Remember each key, its bytes, and when it ends."""
        self.pass_time(0)
        self._remembered = [
            (key, self._now + self._client.pttl(key) / 1000, self._client.dump(key)) for key in self._client.scan_iter()
        ]

    def fail_over(self) -> None:
        """Start a server with what was remembered, and lead everybody to it."""
        self.pass_time(0)
        server = self._start()
        for key, ends_at, data in self._remembered:
            if ends_at > self._now:
                self._client.restore(key, round((ends_at - self._now) * 1000), data)
        self._switch.lead_to(server)

    def cut_off(self) -> None:
        """Refuse connections and lose those that are open."""
        self._switch.refuse()

    async def reach_again(self) -> None:
        """Wait until both have noticed that they are let through."""
        self._switch.pass_through()
        await eventually_async(lambda: connected(self))


@asynccontextmanager
async def fake() -> AsyncIterator[Side]:
    """Open the tier in memory."""
    side = FakeSide()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(side.listen)
        await connected(side)
        side.outlast_marks()
        yield side
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def real() -> AsyncIterator[Side]:
    """Open the real tier over a server of its own.

    That it looks at the server again where it was emptied comes at a time of its own: it is left out.
    """
    with ExitStack() as servers, patch.object(Session, "check_soon", lambda *_: None):
        side = RedisSide(servers)
        async with side.opened[0], side.opened[1]:
            await connected(side)
            side.outlast_marks()
            yield side


Open: TypeAlias = Callable[[], AbstractAsyncContextManager[Side]]
