"""How flights are carried: what they find before it, their call of the source, and what is kept of its answer."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

import anyio

from ..errors import SourceUnavailable
from ..stats import Counters
from ..stray import is_stray
from .base import Ask, Entry, Fence, Fetched, Found, Stored, end_of
from .failsafe import FailSafe
from .flight import Flight
from .flights import DRAIN_SECONDS, Flights
from .keeping import Keeping
from .looking import Looking
from .memory import MemoryTier
from .names import digest_of
from .policy import CachePolicy
from .queue import LoadQueue, QueueLimits
from .shared import SharedTier, Storing
from .trust import Trust, own_epoch

V = TypeVar("V")


class Loader(Protocol[V]):
    """Asks the source."""

    @property
    def batch_size(self) -> int:
        """How many names one call may be for."""
        ...

    async def __call__(self, asks: Sequence[Ask]) -> Sequence[Fetched[V] | Exception]:
        """Return what the source has for each name, in their order, an error in the place of what it could not give."""
        ...


class Filling(Generic[V]):
    """Carries flights from their departure to what memory keeps.

    Args:
        policy: how long and how many.
        memory: the tier in this process.
        shared: the tier the fleet shares, or None.
        load: asks the source.
        counters: where events are counted.
        clock: monotonic seconds.
        rng: scatters times to live.
        drain_seconds: seconds loads under way get at shut-down to land.
        trust: how far memory is trusted.
        sleep: waits until a call of the source is slow.
    """

    def __init__(
        self,
        policy: CachePolicy,
        memory: MemoryTier[V],
        shared: SharedTier[V] | None,
        load: Loader[V],
        *,
        counters: Counters,
        clock: Callable[[], float],
        rng: random.Random,
        drain_seconds: float = DRAIN_SECONDS,
        trust: Trust,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        limits = QueueLimits(load.batch_size, policy.max_batches, policy.max_loads, policy.max_waiting)
        self.flights: Flights[V] = Flights(
            lambda flights: self._looking.depart(flights),
            lambda tasks: LoadQueue(tasks, self._call, limits, sleep),
            drain_seconds,
            digest=None if shared is None else digest_of,
        )
        self.keeping: Keeping[V] = Keeping(policy, memory, shared, self.flights, clock, trust)
        self.fail_safe: FailSafe[V] = FailSafe(policy, self.flights, self.keeping, counters, clock, trust)
        self._looking: Looking[V] = Looking(
            policy, self.flights, self.keeping, self._queue_up, trust=trust, counters=counters, clock=clock, rng=rng
        )
        self._trust = trust
        self._policy = policy
        self._load = load
        self._counters = counters
        self._clock = clock
        self._rng = rng

    async def _queue_up(self, flights: Sequence[Flight[V]]) -> None:
        refused: list[Flight[V]] = []
        full: SourceUnavailable | None = None
        for flight in flights:
            try:
                flight.runway.queue.add(flight)
            except SourceUnavailable as error:
                full = error
                refused.append(flight)
        if flights:
            flights[0].runway.queue.dispatch()
        if full is not None:
            self._counters.add("load", "refused", len(refused))
            await self.keeping.release(refused)
            await self.fail_safe.stand_in(refused, [full] * len(refused))

    async def _call(self, batch: Sequence[Flight[V]]) -> None:
        """Make one call of the source for these flights, and land them all."""
        with self.flights.aboard(batch):
            flights = await self._in_time(self.flights.still_wanted(batch))
            await self.keeping.release([flight for flight in batch if flight.landed])
            if flights:
                asked_at = self._clock()
                self._close(flights, asked_at)
                answers = await self._ask(flights)
                pairs = [(each, self._loaded(each, a, asked_at)) for each, a in zip(flights, answers, strict=True)]
                failed = [(flight, entry) for flight, entry in pairs if isinstance(entry, Exception)]
                await self._bring([(flight, entry) for flight, entry in pairs if not isinstance(entry, Exception)])
                await self.keeping.release([flight for flight, _ in failed])
                await self.fail_safe.stand_in([flight for flight, _ in failed], [error for _, error in failed])

    async def _in_time(self, flights: Sequence[Flight[V]]) -> list[Flight[V]]:
        """Return the flights that have not waited for their turn as long as a load may take, and end the others."""
        oldest = anyio.current_time() - self._policy.load_timeout
        late = [flight for flight in flights if flight.started_at < oldest]
        if late:
            error = SourceUnavailable("the source is busy: the load did not come to its turn in time", retry_after=1.0)
            await self.fail_safe.stand_in(late, [error] * len(late))
        return [flight for flight in flights if not flight.landed]

    def _close(self, flights: Sequence[Flight[V]], asked_at: float) -> None:
        """Let no caller join a load that may be older than what is in force when it comes."""
        is_listed = self.keeping.is_listed
        for flight in flights:
            flight.listed = is_listed
            flight.closes_at = end_of(self.keeping.settles(flight), asked_at)
            if not is_listed:
                flight.closes_at = -math.inf

    async def _ask(self, flights: Sequence[Flight[V]]) -> Sequence[Fetched[V] | Exception]:
        self._counters.add("load", "calls")
        self._counters.add("load", "started", len(flights))
        asks = [Ask(each.key, self.keeping.moved_ago(each)) for each in flights]
        late = self._policy.load_timeout
        failure: Exception
        try:
            with anyio.fail_after(late):
                answers = await self._load(asks)
        except TimeoutError as error:
            failure = SourceUnavailable(f"the source did not answer within {late:g} s")
            failure.__cause__ = error
        except Exception as error:  # noqa: BLE001 - whatever a source raises belongs to those who wait for it
            failure = error
        except GeneratorExit:
            # By the garbage collector, perhaps in the middle of another count.
            raise
        except BaseException as error:
            self._counters.add("load", "failed", len(flights))
            if not is_stray(error):
                raise
            failure = SourceUnavailable("something the source waited for was cancelled")
            failure.__cause__ = error
            return [failure] * len(flights)
        else:
            self._counters.add("load", "failed", sum(isinstance(answer, Exception) for answer in answers))
            return answers
        self._counters.add("load", "failed", len(flights))
        return [failure] * len(flights)

    async def _bring(self, brought: Sequence[tuple[Flight[V], Entry[V]]]) -> None:
        epoch, doubted = self._trust.epoch, {flight for flight, _ in brought if flight.doubted}
        for flight, _ in brought:
            flight.doubted = False
        stored_at = self._clock()
        # Loaded while Redis could not be asked, it has no generation and is for this process alone.
        confirmed = await self.keeping.store(
            [self._storing(flight, entry, entry.fence) for flight, entry in brought if entry.fence is not None]
        )
        late = {flight for flight, _ in brought if flight.key in confirmed and self.keeping.is_late(stored_at)}
        self.flights.depart_again(list(late))
        for flight, entry in brought:
            if flight in late:
                continue
            # Storing has compared the generations again: what was doubted, or missed, before it is settled.
            if not self._trust.has_left_since(flight.epoch):
                flight.epoch = epoch if flight.key in confirmed else flight.epoch
            flight.doubted |= flight in doubted and flight.key not in confirmed
            entry.epoch = flight.epoch
            if self.keeping.is_shared and flight.look is None and flight.key not in confirmed:
                entry.epoch = own_epoch(flight.epoch)
            if not self.keeping.keep(flight, entry):
                self._counters.add("load", "overtaken")
            self._land(flight, entry, is_confirmed=flight.key in confirmed)

    def _land(self, flight: Flight[V], entry: Entry[V], *, is_confirmed: bool) -> None:
        # A load that outlasted `untrusted_ttl`, and cannot be confirmed, may have been invalidated meanwhile.
        until = self._trust.of(entry) if flight.listed else entry.loaded_at + self._policy.untrusted_ttl
        is_trusted = is_confirmed or self._clock() < until
        grace = self._policy.longest_untold - self._policy.untrusted_ttl
        if is_trusted or not flight.listed or self._clock() < until + grace:
            self.flights.land(flight, Found(entry, entry.origin, stale=not is_trusted))
        else:
            error = SourceUnavailable("the source answered later than an answer is trusted that Redis cannot confirm")
            self.flights.fail(flight, error)

    def _loaded(self, flight: Flight[V], answer: Fetched[V] | Exception, asked_at: float) -> Entry[V] | Exception:
        if isinstance(answer, Exception):
            return answer
        try:
            lifetime = self._policy.lifetime(known=answer.value is not None, ttl=answer.ttl, scatter=self._rng.random())
        except Exception as error:  # noqa: BLE001 - one whose time to live is no number must not fail his whole batch
            return error
        fence = None if flight.look is None else flight.look.fence
        return self._policy.entry(
            answer.value,
            answer.origin,
            asked_at,
            lifetime,
            shared=self.keeping.is_shared,
            listed=flight.listed,
            fence=fence,
            windows=self.keeping.windows(flight),
        )

    def _storing(self, flight: Flight[V], entry: Entry[V], fence: Fence) -> Storing[V]:
        lifetime = entry.expires_at - entry.loaded_at
        keep_ms = int((lifetime + entry.grace) * 1000)
        stored = Stored(entry.value, entry.origin, lifetime, age=self._clock() - entry.loaded_at)
        windows_ms = None
        if entry.is_settling:
            windows = self.keeping.settles(flight)
            windows_ms = self.keeping.settling.windows_ms(flight.key[1], windows, entry.loaded_at)
        return Storing(flight.key, fence, stored, keep_ms, flight.lease, windows_ms)
