"""The tier the fleet shares: Redis or Valkey, asked with short timeouts behind a breaker."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeAlias, TypeVar

import anyio
import msgspec

from ..breaker import Breaker
from ..perloop import PerLoop
from ..secret import Secret
from ..stats import REDIS, Counters
from .base import Fence, Key, Stored
from .codec import Codec, NoValue
from .driver import Client, RedisOptions, checked, connect, is_busy, run
from .keys import KeySpace, RedisKeys
from .scripts import LOOK, STORE
from .tiered import Look, SharedTierFailed

logger = logging.getLogger("ctxmiddleware.redis")

V = TypeVar("V")
R = TypeVar("R")

CLOSE_SECONDS: Final = 2.0
PROBE_KEEP_MS: Final = 1000
# How long an invalidation is marked as recent, for sources that read replicas: longer than any replica lags.
MARK_MS: Final = 3_600_000

_Found: TypeAlias = tuple[bytes, bytes, bytes | None, int, int]


class _Session:
    """One event loop's client, its places, and its breaker."""

    def __init__(self, client: Client, options: RedisOptions) -> None:
        self.client = client
        # A pool smaller than that would refuse, and a refusal looks like a fault.
        self.places = anyio.CapacityLimiter(min(options.pool_size, client.connection_pool.max_connections))
        self.breaker = Breaker(options.fault_threshold)
        self.down = anyio.Event()

    async def take_place(self, seconds: float) -> bool:
        """Wait for a free connection, so many seconds at most, and return whether there was one."""
        with anyio.move_on_after(seconds) as scope:
            await self.places.acquire()
        return not scope.cancelled_caught


class RedisTier(Generic[V]):
    """Values and generations in Redis, under keys that hold no name.

    Args:
        target: a URL, or a ready client, which is neither changed nor closed.
        codec: how values travel.
        namespace: what keeps two applications on one Redis apart.
        counters: where events are counted.
        options: timeouts and sizes.
        token: makes a generation, a value never used before.

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
    ) -> None:
        self._target = checked(target)
        self.codec = codec
        self._namespace = namespace
        self._keys = KeySpace(namespace, codec.shape)
        self._counters = counters
        self._options = options or RedisOptions()
        self._token = token
        self._sessions: PerLoop[_Session] = PerLoop("Redis", self._open)

    def __repr__(self) -> str:
        return f"<RedisTier: namespace {self._namespace!r}>"

    @property
    def opened(self) -> PerLoop[_Session]:
        """The context manager that opens the client of the running event loop."""
        return self._sessions

    def is_up(self) -> bool | None:
        """Return whether requests of this event loop ask Redis; None where it is not open."""
        session = self._sessions.peek()
        return None if session is None else not session.breaker.is_open

    async def look(self, key: Key, keep_ms: int) -> Look[V] | None:
        """Return the generations in force and the value stored under them, or None where Redis cannot answer now."""
        keys = self._keys.of(key)
        found = await self._ask(lambda client: self._found(client, keys, keep_ms))
        if found is None:
            return None
        everyone, name, data, left_ms, mark_ms = found
        fence = Fence(everyone, name)
        stored = None if data is None else self.codec.unpack(data, key, fence, left_ms)
        if isinstance(stored, NoValue):
            self._counters.add(stored.value, REDIS)
            stored = None
        # The time a mark has left tells its age without any wall clock.
        moved_ago = (MARK_MS - mark_ms) / 1000 if mark_ms > 0 else math.inf
        return Look(fence, stored, moved_ago)

    async def store(self, key: Key, fence: Fence, stored: Stored[V], keep_ms: int) -> bool | None:
        """Keep a value while the generations are these; False where they have moved on, None where Redis failed."""
        keys = self._keys.of(key)
        left_ms = keep_ms - int(stored.age * 1000)
        # With nothing to keep the generations are compared all the same: others wait for what was loaded.
        data = self._packed(key, fence, stored, keep_ms) if left_ms > 0 else b""
        answer = await self._ask(lambda client: run(client, STORE, keys, *fence, data, left_ms))
        return None if answer is None else answer == 1

    async def invalidate(self, name: str | None, keep_ms: int) -> None:
        """Put a new generation in force for a name, or for everyone where it is None.

        Raises:
            SharedTierFailed: Redis did not say that it has.
        """
        session = await self._sessions.ensure()
        wait = self._options.invalidation_wait
        if not await session.take_place(wait):
            raise SharedTierFailed(f"no connection to Redis was free for {wait:g} s")
        keys = self._keys.everyone()
        if name is not None:
            one = self._keys.of(("", name))
            keys = [(one.generation, one.mark)]
        try:
            with anyio.fail_after(wait):
                await self._renew(session.client, keys, keep_ms)
        except Exception as error:  # the driver raises more than its own errors when what answers is not Redis
            self._fault(session, error)
            raise SharedTierFailed(f"Redis did not take the invalidation: {type(error).__name__}") from error
        finally:
            session.places.release()
        self._success(session)

    async def _renew(self, client: Client, keys: list[tuple[str, str]], keep_ms: int) -> None:
        pipeline = client.pipeline(transaction=False)
        for generation, mark in keys:
            # The mark first: whoever loads under the new generation must know how new it is.
            pipeline.set(mark, b"", px=MARK_MS)
            pipeline.set(generation, self._token(), px=keep_ms)
        answers = await pipeline.execute()
        if answers != [True] * (2 * len(keys)):
            raise ConnectionError("Redis answered a SET with something else than OK")

    def _packed(self, key: Key, fence: Fence, stored: Stored[V], keep_ms: int) -> bytes:
        data = self.codec.pack(key, fence, stored, keep_ms)
        if data is not None:
            return data
        if not self._counters.get("unstorable", REDIS):
            logger.warning("a context cannot be stored in Redis: msgpack cannot hold it, or it is too large")
        self._counters.add("unstorable", REDIS)
        return b""

    async def _found(self, client: Client, keys: RedisKeys, keep_ms: int) -> _Found:
        # Converted strictly: whatever else answers at that port is a fault here, not a surprise later.
        answer: _Found = msgspec.convert(await run(client, LOOK, keys, self._token(), keep_ms), _Found)
        return answer

    async def _ask(self, command: Callable[[Client], Awaitable[R]]) -> R | None:
        session = self._sessions.current
        if session.breaker.is_open:
            return None
        # Waiting for a place says nothing about Redis: counted apart, it must never open the breaker.
        if not await session.take_place(self._options.pool_wait):
            self._counters.add("busy", REDIS)
            return None
        try:
            # A ready client may have no timeouts at all, and those of a URL may be anything.
            with anyio.fail_after(2 * self._options.timeout):
                answer = await command(session.client)
        except Exception as error:  # noqa: BLE001 - whatever the driver raises, a request goes on to the source
            if is_busy(error):
                self._counters.add("busy", REDIS)
            else:
                self._fault(session, error)
            return None
        finally:
            session.places.release()
        self._success(session)
        return answer

    def _fault(self, session: _Session, error: Exception) -> None:
        self._counters.add("fault", REDIS)
        if session.breaker.fault():
            session.down.set()
            logger.error("Redis does not answer: contexts come from memory and the source alone", exc_info=error)

    def _success(self, session: _Session) -> None:
        if session.breaker.success():
            logger.info("Redis answers again")

    async def _probe(self, session: _Session) -> None:
        while True:
            await session.down.wait()
            session.down = anyio.Event()
            while session.breaker.is_open:
                await anyio.sleep(self._options.probe_every)
                if await self._works(session.client):
                    self._success(session)

    async def _works(self, client: Client) -> bool:
        # A look-up of nobody, which has to write: a full, read-only or forbidden Redis still answers a PING.
        nobody = self._keys.of(("", secrets.token_hex()))
        try:
            with anyio.fail_after(2 * self._options.timeout):
                await self._found(client, nobody, PROBE_KEEP_MS)
        except Exception:  # noqa: BLE001 - a probe that ends with its first surprise would leave Redis down for good
            return False
        return True

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[_Session]:
        client = connect(self._target, self._options) if isinstance(self._target, Secret) else self._target
        session = _Session(client, self._options)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._probe, session)
            try:
                yield session
            finally:
                tasks.cancel_scope.cancel()
                if client is not self._target:
                    with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                        await client.aclose()
