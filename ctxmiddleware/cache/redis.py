"""The tier the fleet shares: Redis or Valkey, asked with short timeouts behind a breaker."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar

import anyio

from ..perloop import PerLoop
from ..secret import Secret
from ..stats import REDIS, Counters
from .base import Fence, Key
from .codec import Codec, NoValue
from .driver import Call, Client, RedisOptions, Spread, checked
from .incarnation import MARK_MS, Incarnation
from .keys import KeySpace
from .order import Errand, Order, answer_of, shared_out
from .scripts import LOOK, RENEW, STORE, Found, Script
from .session import Session, Way
from .shared import Look, SharedTierFailed, Storing
from .topology import opened

logger = logging.getLogger("ctxmiddleware.redis")

V = TypeVar("V")
A = TypeVar("A")

PROBE_KEEP_MS: Final = 1000


class RedisTier(Generic[V]):
    """Values and generations in Redis, under keys that hold no name.

    Args:
        target: a URL, or a ready client, which is neither changed nor closed.
        codec: how values travel.
        namespace: what keeps two applications on one Redis apart.
        counters: where events are counted.
        options: timeouts and sizes.
        token: makes a generation, a value never used before.
        clock: monotonic seconds.

    Raises:
        ConfigurationError: the URL is not one, or the client is of another kind or decodes responses.
    """

    def __init__(
        self,
        target: str | Secret | Client,
        *,
        codec: Codec[V],
        namespace: str,
        counters: Counters,
        options: RedisOptions | None = None,
        token: Callable[[], bytes] = lambda: secrets.token_bytes(16),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._target = checked(target)
        self.codec = codec
        self._namespace = namespace
        self._keys = KeySpace(namespace, codec.shape)
        self._counters = counters
        self._options = options or RedisOptions()
        self._token = token
        self._clock = clock
        self._incarnation = Incarnation(self._keys, counters, token, clock)
        self._sessions: PerLoop[Session] = PerLoop("Redis", self._open)

    def __repr__(self) -> str:
        return f"<RedisTier: namespace {self._namespace!r}>"

    @property
    def opened(self) -> PerLoop[Session]:
        """The context manager that opens the client of the running event loop."""
        return self._sessions

    def is_up(self) -> bool | None:
        """Return whether requests of this event loop ask Redis; None where it is not open."""
        session = self._sessions.peek()
        return None if session is None else session.is_up

    async def look(self, keys: Sequence[Key], keep_ms: int) -> list[Look[V] | None]:
        """Return what Redis holds for each key, creating absent generations; None for those it cannot answer now."""
        found = await self._ask(LOOK, [Errand(self._keys.of(key)) for key in keys], (keep_ms,))
        return [None if each is None else self._look(key, each) for key, each in zip(keys, found, strict=True)]

    def _look(self, key: Key, found: Found) -> Look[V]:
        everyone, name, data, left_ms, mark_ms = found
        fence = Fence(everyone, name)
        stored = None if data is None else self.codec.unpack(data, key, fence, left_ms)
        if isinstance(stored, NoValue):
            self._counters.add(stored.value, REDIS)
            stored = None
        # The time a mark has left tells its age without any wall clock.
        moved_ago = (MARK_MS - mark_ms) / 1000 if mark_ms > 0 else math.inf
        return Look(fence, stored, moved_ago)

    async def store(self, values: Sequence[Storing[V]]) -> list[bool | None]:
        """Keep each value while its generations are in force; False where they have moved on, None if nobody knows."""
        kept = await self._ask(STORE, [self._storing(value) for value in values])
        return [None if each is None else each == 1 for each in kept]

    def _storing(self, value: Storing[V]) -> Errand:
        left_ms = value.keep_ms - int(value.stored.age * 1000)
        # With nothing to keep the generations are compared all the same: others wait for what was loaded.
        data = self._packed(value) if left_ms > 0 else b""
        return Errand(self._keys.of(value.key)[:3], (*value.fence, data, left_ms))

    def _packed(self, value: Storing[V]) -> bytes:
        data = self.codec.pack(value.key, value.fence, value.stored, value.keep_ms)
        if data is not None:
            return data
        if not self._counters.get("unstorable", REDIS):
            logger.warning("a context cannot be stored in Redis: msgpack cannot hold it, or it is too large")
        self._counters.add("unstorable", REDIS)
        return b""

    async def _ask(
        self, script: Script[list[A]], errands: Sequence[Errand], common: tuple[int, ...] = ()
    ) -> Sequence[A | None]:
        session, now = self._sessions.current, self._clock()
        shares = shared_out(errands, apart=session.is_spread)
        orders = [Order(script, [errands[place] for place in places], common, now, tag) for tag, places in shares]
        await session.ask(orders)
        answers: list[A | None] = [None] * len(errands)
        for (_, places), order in zip(shares, orders, strict=True):
            for place, answer in zip(places, order.answers or (), strict=False):
                answers[place] = answer
        return answers

    async def invalidate(self, name: str | None, keep_ms: int) -> None:
        """Put a new generation in force for a name, or for everyone where it is None.

        Raises:
            SharedTierFailed: Redis did not say that it has.
        """
        session = await self._sessions.ensure()
        wait = self._options.invalidation_wait
        if not await session.take_place(wait):
            raise SharedTierFailed(f"no connection to Redis was free for {wait:g} s")
        pairs = self._keys.everyone()
        if name is not None:
            one = self._keys.of(("", name))
            pairs = [(one.generation, one.mark)]
        try:
            with anyio.fail_after(wait):
                await self._renew(session.pool, pairs, keep_ms)
        except Exception as error:  # the driver raises more than its own errors when what answers is not Redis
            session.fault(error)
            raise SharedTierFailed(f"Redis did not take the invalidation: {type(error).__name__}") from error
        finally:
            session.places.release()
        session.success()

    async def _renew(self, way: Way, pairs: Sequence[tuple[str, str]], keep_ms: int) -> None:
        token = self._token()
        # In a cluster each bucket has a slot of its own.
        shares = [[pair] for pair in pairs] if isinstance(way.client, Spread) else [pairs]
        calls = [Call(RENEW, [key for pair in share for key in pair], (token, MARK_MS, keep_ms)) for share in shares]
        for share, reply in zip(shares, await way.run(calls), strict=True):
            if answer_of(RENEW, token, reply) != len(share):
                raise ConnectionError("Redis answered an invalidation with something else than it was told")

    def _probing(self) -> Order[Found]:
        # A look-up of nobody, which has to write: a full, read-only or forbidden Redis still answers a PING.
        nobody = self._keys.of(("", secrets.token_hex()))
        return Order(LOOK, [Errand(nobody)], (PROBE_KEEP_MS,), self._clock())

    def _ways(self) -> tuple[Way, Way]:
        pool, own, are_ours = opened(self._target, self._options, self._incarnation, self._keys)
        way = Way(pool, self._incarnation, is_ours=are_ours)
        return way, way if own is pool else Way(own, self._incarnation, is_ours=are_ours)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Session]:
        pool, own = self._ways()
        session = Session(pool, own, self._options, self._counters, self._token, self._clock)
        async with anyio.create_task_group() as tasks:
            session.open(tasks, self._probing)
            try:
                yield session
            finally:
                tasks.cancel_scope.cancel()
                await session.close()
