"""How a long-lived connection is told of its user: the loop behind `plugin.watch`."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Final, Generic, Self, TypeVar

import anyio
from anyio.lowlevel import RunVar

from .cache.base import Found
from .cache.tiered import TieredCache
from .connection import Connection, UntilDisconnect
from .errors import SourceUnavailable
from .principal import Identity
from .reports import Resolution
from .resolver import Resolver
from .stats import MEMORY

T = TypeVar("T")

# Woken all at once they must not take the places of requests in the queue at the source.
AT_ONCE: Final = 1000


class _Told(Enum):
    NOTHING = auto()


class Watching(Generic[T]):
    """Makes one plugin's watches, and lets only so many of them resolve at a time.

    Args:
        resolver: resolves.
        cache: knows until when what was resolved holds, and rings when it does no longer.
        opened: opens the plugin in the running event loop.
        wall_clock: seconds since the epoch, compared with an identity's own expiry only.
    """

    def __init__(
        self,
        resolver: Resolver[T],
        cache: TieredCache[T],
        opened: Callable[[], Awaitable[object]],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.opened = opened
        self.wall_clock = wall_clock
        self._at_once = max(1, min(AT_ONCE, cache.policy.max_waiting // 2))
        self.turn_to(resolver, cache)
        self._gate: RunVar[anyio.Semaphore] = RunVar("watches that resolve")
        self._is_open: RunVar[bool] = RunVar("whether watches are told of news", default=False)

    def turn_to(self, resolver: Resolver[T], cache: TieredCache[T]) -> None:
        """Let watches, those that exist included, ask these from now on."""
        self.resolver = resolver
        self.cache = cache

    def watch(self, identity: Identity, connection: Connection | None = None) -> Watch[T]:
        """Return the changes of one user, from now on, and until a connection ends where one is given."""
        return Watch(self, identity, None if connection is None else UntilDisconnect(connection))

    @contextmanager
    def open(self) -> Iterator[None]:
        """Let the running event loop's watches wait for news, and end their waiting where there will be none."""
        self._is_open.set(True)
        try:
            yield
        except GeneratorExit:
            # By the garbage collector: its loop has ended, and another one may be running now.
            raise
        except BaseException:
            self._end()
            raise
        self._end()

    def _end(self) -> None:
        self._is_open.set(False)
        self.cache.watchers.ring(None)

    async def resolve(self, identity: Identity) -> tuple[Found[T], T | None]:
        """Resolve, in turn where many others do.

        Returns:
            what is known, and its context, which no caller has and may change.

        Raises:
            SourceUnavailable: the plugin was closed, and invalidations are not heard any more.
            SourceError: as `Resolver.resolve` does.
        """
        if not self._is_open.get():
            raise SourceUnavailable("the application is shutting down")
        # One look: the entry may be replaced by another thread before a second one.
        entry = self.resolver.peek_entry(identity)
        if entry is not None:
            found = Found(entry, MEMORY)
        else:
            async with self._turn():
                found = await self.resolver.found(identity)
        return found, self.resolver.shared_context_of(found.entry)

    def _turn(self) -> anyio.Semaphore:
        gate = self._gate.get(None)
        if gate is None:
            gate = anyio.Semaphore(self._at_once)
            self._gate.set(gate)
        return gate


class Watch(AsyncIterator[Resolution[T]]):
    """What is known of one user, and again whenever that has changed.

    It is known to nobody but while somebody awaits its next change, so it needs no closing; what happens in between is
    found by the look with which each wait begins.

    Args:
        watching: the plugin's.
        identity: of the user.
        until: ends it, where it belongs to a connection.
    """

    def __init__(self, watching: Watching[T], identity: Identity, until: UntilDisconnect | None = None) -> None:
        self._watching = watching
        self._identity = identity
        self._until = until
        self._told: T | _Told | None = _Told.NOTHING
        self._looked_at = -math.inf

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Resolution[T]:
        return await (self._next() if self._until is None else self._until.wait_for(self._next))

    async def _next(self) -> Resolution[T]:
        await self._watching.opened()
        cache = self._watching.cache
        with cache.watchers.watching(self._identity.cache_key[1]) as bell:
            while (left := self._left()) > 0:
                with anyio.move_on_after(left):
                    found, context = await self._resolved()
                    if self._told is _Told.NOTHING or context != self._told:
                        self._told = context
                        return self._watching.resolver.resolution_of(found, context)
                    with anyio.move_on_after(cache.holds_for(found.entry)):
                        await bell.wait()
                    while (pause := self._pause()) > 0:
                        with anyio.move_on_after(pause):
                            await bell.wait()
        raise StopAsyncIteration

    def _pause(self) -> float:
        """Return the seconds to wait before another look at what is doubted and no more."""
        # A Redis that is full evicts generations while others are looked up: those who watch would keep it at that.
        if not self._watching.cache.is_doubted(self._identity.cache_key):
            return 0.0
        now = anyio.current_time()
        pause = self._looked_at + self._watching.cache.policy.untrusted_ttl - now
        if pause <= 0:
            self._looked_at = now
        return pause

    async def _resolved(self) -> tuple[Found[T], T | None]:
        try:
            return await self._watching.resolve(self._identity)
        except Exception:
            # Whoever has refused the user since is told when that is over, though the context be the same.
            self._told = _Told.NOTHING
            raise

    def _left(self) -> float:
        """Return the seconds until the identity expires."""
        expires_at = self._identity.expires_at
        return math.inf if expires_at is None else expires_at - self._watching.wall_clock()
