"""The tier the fleet shares: Redis or Valkey, asked with short timeouts behind a breaker."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Final, Generic, Literal, TypeVar

import anyio

from ...clock import monotonic
from ...perloop import PerLoop
from ...secret import Secret
from ...stats import REDIS, Counters
from ...tracebacks import sheltered
from ..base import Fence, Key
from ..shared import Claim, Claiming, Listener, Look, Reach, Recalled, Storing, Waiting
from .codec import Codec, NoValue
from .fleet import Fleet
from .holds import Holds
from .incarnation import MARK_MS, Incarnation, age_of
from .keys import CALLED_SIZE, KeySpace, RedisKeys
from .lease import Leases
from .lua.hot import HOTTEST, REMEMBER
from .lua.script import Script
from .lua.values import LOOK, STORE, Found
from .options import RedisOptions
from .order import Errand, Order, answer_of, shared_out
from .servers.driver import Call, Client, checked
from .session import Session
from .topology import opened
from .way import Way

V = TypeVar("V")
A = TypeVar("A")

PROBE_KEEP_MS: Final = 1000
REMEMBERED_AT_ONCE: Final = 500
# Of all instances together; whoever was not asked for longest is forgotten first.
MAX_HOT: Final = 50_000


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

    @sheltered
    def __init__(
        self,
        target: str | Secret | Client,
        *,
        codec: Codec[V],
        namespace: str,
        counters: Counters,
        options: RedisOptions | None = None,
        token: Callable[[], bytes] = lambda: secrets.token_bytes(16),
        clock: Callable[[], float] = monotonic,
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
        self._fleet = Fleet(self._keys, counters, self._options, token, lambda: self._incarnation.is_named)
        self._holds = Holds(self._keys, self._options, token)
        self._leases = Leases(
            self._ask,
            self._keys,
            me=lambda: self._fleet.me,
            wake=self._wake,
            token=token,
            lasts=self._options.lease,
        )
        self._sessions: PerLoop[Session] = PerLoop("Redis", self._open)

    def __repr__(self) -> str:
        return f"<RedisTier: namespace {self._namespace!r}>"

    def listen(self, listener: Listener) -> None:
        """Tell an instance what is heard of the others from now on; called once, before anything else."""
        self._fleet.listen(listener)

    def is_heard(self) -> bool:
        """Return whether this process hears what the others invalidate."""
        return self._fleet.is_heard

    @property
    def is_listed(self) -> bool:
        """Whether the reports of other instances count this one in for as long as it may serve what it gets now."""
        return self._fleet.is_listed

    @property
    def instance(self) -> str:
        """The name of this instance in the fleet."""
        return self._fleet.me

    @property
    def opened(self) -> PerLoop[Session]:
        """The context manager that opens the client of the running event loop."""
        return self._sessions

    def is_up(self) -> bool | None:
        """Return whether requests of this event loop ask Redis; None where it is not open."""
        session = self._sessions.peek()
        return None if session is None else session.is_up

    def health(self) -> Literal["unknown", "ok", "failing", "not open"]:
        """Return what the commands of this event loop have shown of Redis."""
        session = self._sessions.peek()
        return "not open" if session is None else session.health

    async def look(self, keys: Sequence[Key], keep_ms: int) -> list[Look[V] | None]:
        """Return what Redis holds for each key, creating absent generations; None for those it cannot answer now."""
        all_keys = [self._keys.of(key) for key in keys]
        found = await self._ask(LOOK, [Errand(each[:6]) for each in all_keys], (keep_ms,))
        return [
            None if each is None else self._look(key, redis_keys.value, each)
            for key, redis_keys, each in zip(keys, all_keys, found, strict=True)
        ]

    def _look(self, key: Key, redis_key: str, found: Found) -> Look[V]:
        everyone, name, data, left_ms, everyone_mark_ms, mark_ms, held_ms = found
        fence = Fence(everyone, name)
        stored = None if data is None else self.codec.unpack(data, key, fence, left_ms, redis_key=redis_key)
        if isinstance(stored, NoValue):
            self._counters.add(stored.value, REDIS)
            stored = None
        return Look(fence, stored, age_of(mark_ms), age_of(everyone_mark_ms), held_ms > 0, left_ms)

    async def store(self, values: Sequence[Storing[V]]) -> list[bool | None]:
        """Keep each value while its generations are in force; False where they have moved on, None if nobody knows."""
        answers = await self._ask(STORE, [self._storing(value) for value in values], (MARK_MS,))
        self._leases.forget([value.lease for value, each in zip(values, answers, strict=True) if each is not None])
        self._wake([(value.key, each[1]) for value, each in zip(values, answers, strict=True) if each is not None])
        return [None if each is None else each[0] == 1 for each in answers]

    def _wake(self, waiting: Sequence[tuple[Key, Sequence[bytes]]]) -> None:
        self._fleet.wake(self._sessions.current, waiting)

    def _storing(self, value: Storing[V]) -> Errand:
        left_ms = value.keep_ms - int(value.stored.age * 1000)
        # With nothing to keep the generations are compared all the same: others wait for what was loaded.
        keys = self._keys.of(value.key)
        data = self._packed(value, keys.value) if left_ms > 0 else b""
        windows = [b"" if each is None else each for each in value.windows_ms or (None, None)]
        return Errand(
            (*keys[:3], keys.lease, keys.everyone_mark, keys.mark), (*value.fence, data, left_ms, value.lease, *windows)
        )

    def _packed(self, value: Storing[V], redis_key: str) -> bytes:
        data = self.codec.pack(value.key, value.fence, value.stored, value.keep_ms, redis_key=redis_key)
        if data is None:
            self._counters.add("unstorable", REDIS)
        return data or b""

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

    async def remember(self, keys: Sequence[Key]) -> None:
        """Take note that an instance was asked for these users."""
        called = [self._keys.called(key) for key in keys]
        for start in range(0, len(called), REMEMBERED_AT_ONCE):
            some = called[start : start + REMEMBERED_AT_ONCE]
            await self._sessions.current.once(Call(REMEMBER, [self._keys.hot()], (self._token(), MAX_HOT, *some)))

    async def hottest(self, limit: int) -> Sequence[bytes]:
        """Return what those are called whom the fleet was asked for last, the last first."""
        if limit < 1:
            return []
        token = self._token()
        reply = await self._sessions.current.once(Call(HOTTEST, [self._keys.hot()], (token, limit)))
        if reply is None or isinstance(reply, Exception):
            return []
        return [called for called in answer_of(HOTTEST, token, reply) if len(called) == CALLED_SIZE]

    async def recall(self, called: Sequence[bytes], keep_ms: int) -> Sequence[Recalled[V] | None]:
        """Return what Redis holds of each of them under the generations in force."""
        all_keys = [self._keys.of_called(each) for each in called]
        found = await self._ask(LOOK, [Errand(each[:6]) for each in all_keys], (keep_ms,))
        return [
            None if each is None else self._recalled(keys, each) for keys, each in zip(all_keys, found, strict=True)
        ]

    def _recalled(self, keys: RedisKeys, found: Found) -> Recalled[V] | None:
        key = None if found[2] is None else self.codec.owner(found[2], redis_key=keys.value)
        # Whose it says it is counts only under that user's own key.
        if key is None or self._keys.of(key) != keys:
            return None
        look = self._look(key, keys.value, found)
        return None if look.stored is None else Recalled(key, look, look.stored)

    async def claim(self, wanted: Sequence[Claiming]) -> list[Claim]:
        """Return of each load whether it may be made here, or for how long to wait for another instance's."""
        return await self._leases.claim(wanted)

    async def release(self, leases: Sequence[bytes]) -> None:
        """Give back the leases of loads that brought nothing to store."""
        await self._leases.release(leases)

    def landings(self, keys: Sequence[Key]) -> AbstractContextManager[Waiting]:
        """Listen for loads of these keys by other instances; begun before they are claimed."""
        return self._fleet.landings.of(keys)

    async def mark(self, names: Sequence[str] | None) -> bool:
        """Let names, or everyone where it is None, count as invalidated just now; return whether Redis has said so."""
        async with self._sessions.using() as session:
            return await self._fleet.mark(session, names)

    async def renew(self, names: Sequence[str] | None, keep_ms: int, known_silent: Collection[str]) -> Reach:
        """Do what `invalidate` does, of many names in one trip; the instances known to be silent are not waited for."""
        async with self._sessions.using() as session:
            return await self._fleet.invalidate(session, names, keep_ms, known_silent=known_silent)

    async def hold(self, names: Sequence[str], holder: bytes) -> list[bool]:
        """Let no instance keep what it loads of these names; return for each whether this holder held it already.

        Raises:
            SharedTierFailed: Redis did not confirm it.
        """
        async with self._sessions.using() as session:
            return await self._holds.hold(session, names, holder)

    async def let_go(self, names: Sequence[str], holder: bytes) -> None:
        """Take back what `hold` has begun.

        Raises:
            SharedTierFailed: Redis did not confirm it.
        """
        async with self._sessions.using() as session:
            await self._holds.let_go(session, names, holder)

    async def invalidate(self, name: str | None, keep_ms: int, partitions: Sequence[str] = ()) -> Reach:
        """Put a new generation in force for a name, or for everyone where it is None; return who has confirmed it.

        Args:
            name: the name.
            keep_ms: milliseconds a generation lives.
            partitions: in which the name may have values: those are removed at once.

        Raises:
            SharedTierFailed: Redis did not say that it has.
        """
        async with self._sessions.using() as session:
            return await self._fleet.invalidate(session, None if name is None else [name], keep_ms, partitions)

    def _probing(self) -> Order[Found]:
        # A look-up of nobody, which has to write: a full, read-only or forbidden Redis still answers a PING.
        nobody = self._keys.of(("", secrets.token_hex()))
        return Order(LOOK, [Errand(nobody[:6])], (PROBE_KEEP_MS,), self._clock())

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
                await self._fleet.begin(tasks, pool, session)
                # Not before the session can be asked.
                tasks.start_soon(self._leases.keep)
                yield session
            finally:
                tasks.cancel_scope.cancel()
                leaving = self._fleet.leave()
                try:
                    await session.close(leaving)
                finally:
                    self._fleet.left(leaving)
