"""One event loop's way to Redis: its connections, its breaker, and who travels how."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import anyio
from anyio.abc import TaskGroup

from ...breaker import Breaker
from ...failure_log import log_failure
from ...stats import REDIS, Counters
from .lane import Lane
from .options import RedisOptions
from .order import Batch, Order, OutOfStep, gathered
from .servers.driver import Call, Link, NodeFailed, Refused, Spread, is_busy, room
from .way import Way

logger = logging.getLogger("ctxmiddleware.redis")

A = TypeVar("A")


class Session:
    """Carries out orders, over the pool or gathered over a connection of their own.

    Args:
        pool: for what travels alone, and for invalidations.
        own: for what is gathered; the same as the pool where a ready client was given.
        options: timeouts and sizes.
        counters: where events are counted.
        token: makes a value never used before.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        pool: Way,
        own: Way,
        options: RedisOptions,
        counters: Counters,
        token: Callable[[], bytes],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pool = pool
        self._own = own
        self._options = options
        self._counters = counters
        self._token = token
        self._clock = clock
        self.places = anyio.CapacityLimiter(room(pool.client, options))
        self.breaker = Breaker(options.fault_threshold)
        self._last: Literal["unknown", "ok", "failing"] = "unknown"
        self._alone = False
        self._tasks: TaskGroup | None = None
        self._down = anyio.Event()
        self.lane = Lane(
            self._travel_together, self._busy, patience=options.pool_wait, longest=options.timeout, clock=clock
        )

    @property
    def client(self) -> Link:
        """The client whose pool it uses."""
        return self.pool.client

    @property
    def is_spread(self) -> bool:
        """Whether keys of two buckets may be on two servers."""
        return isinstance(self.client, Spread)

    @property
    def is_up(self) -> bool:
        """Whether requests ask Redis."""
        return not self.breaker.is_open and not (isinstance(self.client, Spread) and self.client.is_down)

    @property
    def health(self) -> Literal["unknown", "ok", "failing"]:
        """The state of Redis after the last command."""
        return self._last if self.is_up else "failing"

    def heard(self, error: Exception | None) -> None:
        """Record a reply of the channel, or the error with which it was lost or could not be opened."""
        if error is None:
            self._last = "ok"
            return
        if self._last == "unknown":
            self._counters.add("fault", REDIS)
        elif self.is_spread or isinstance(error, Refused):
            # The other nodes, and commands that are allowed, may be answered all the same.
            return
        self._last = "failing"

    async def ask(self, orders: Sequence[Order[Any]]) -> None:
        """Carry out orders; each has its answers afterwards, or None where Redis cannot say now."""
        if self.breaker.is_open:
            return
        if len(orders) == 1 and len(orders[0].errands) == 1 and self._is_quiet():
            await self._travel_alone(orders[0])
            return
        for order in orders:
            self.lane.place(order)
        for order in orders:
            await order.done.wait()

    def tell(self, call: Call) -> None:
        """Carry out a script behind whoever asks for it, whose answer nobody waits for."""
        if self._tasks is not None and not self.breaker.is_open:
            self._tasks.start_soon(self._tell, call)

    def check_soon(self) -> None:
        """Ask, behind the answers, whether the server is the one that is known."""
        if self._tasks is not None and not self.breaker.is_open:
            self._tasks.start_soon(self._check, self.pool)

    async def _tell(self, call: Call) -> None:
        await self.once(call)

    async def once(self, call: Call) -> object | None:
        """Carry out a script that can wait, and return its reply, or None where there is none; never a fault."""
        reply: object = None
        if not self.breaker.is_open and await self.take_place(self._options.timeout):
            try:
                with anyio.move_on_after(2 * self._options.timeout), contextlib.suppress(Exception):
                    (reply,) = await self.pool.run([call])
            finally:
                self.places.release()
        return reply

    async def take_place(self, seconds: float) -> bool:
        """Wait for a free connection, so many seconds at most, and return whether there was one."""
        with anyio.move_on_after(seconds) as scope:
            await self.places.acquire()
        return not scope.cancelled_caught

    def fault(self, error: Exception) -> None:
        """Take note of a command that failed."""
        self._counters.add("fault", REDIS)
        if not isinstance(error, NodeFailed) or self._last == "unknown":
            self._last = "failing"
        # One node of a cluster has a breaker of its own.
        if not isinstance(error, NodeFailed) and self.breaker.fault():
            self._down.set()
            # Nobody is to wait for what is given up.
            self.lane.send_back()
            message = "Redis does not answer, and contexts come from memory and the source alone"
            log_failure(logger, logging.ERROR, message, error=error)

    def success(self) -> None:
        """Take note of a command that was carried out."""
        self._last = "ok"
        if self.breaker.success():
            logger.error("Redis answers again")

    def open(self, tasks: TaskGroup, order: Callable[[], Order[Any]]) -> None:
        """Begin to work, in tasks that end when they are cancelled.

        Args:
            tasks: where.
            order: makes what is asked for to see whether Redis works again.
        """
        self._tasks = tasks
        self.lane.open(tasks)
        if isinstance(self.client, Spread):
            tasks.start_soon(self.client.mind)
        tasks.start_soon(self._probe, order)
        tasks.start_soon(self._look_after)

    async def close(self, last: Call | None = None) -> None:
        """Close the connections that are ours.

        Args:
            last: a script to carry out before, if Redis answers in time.
        """
        try:
            if last is not None:
                with anyio.CancelScope(shield=True):
                    await self.once(last)
        finally:
            # A loop that ends cancels this task again and again.
            try:
                await self.pool.close()
            finally:
                await self._own.close()

    def _is_quiet(self) -> bool:
        return self.lane.is_idle and not self._alone and self.places.available_tokens > 0

    async def _travel_alone(self, order: Order[Any]) -> None:
        # Without a task of its own: whoever asks for it waits for it, and nobody else.
        self.places.acquire_nowait()
        self._alone = True
        try:
            await self._carry_out(self.pool, [Batch(order)], 1)
        finally:
            self._alone = False
            self.places.release()

    async def _travel_together(self, orders: Sequence[Order[Any]]) -> None:
        users = sum(len(order.errands) for order in orders)
        if self._own is not self.pool:
            await self._carry_out(self._own, gathered(orders), users)
        # Waiting for a place says nothing about Redis: counted apart, it must never open the breaker.
        elif not await self.take_place(self._options.pool_wait):
            self._busy(users)
        else:
            try:
                await self._carry_out(self.pool, gathered(orders), users)
            finally:
                self.places.release()

    async def _carry_out(self, way: Way, batches: Sequence[Batch], users: int) -> None:
        try:
            # A ready client may have no timeouts at all, and those of a URL may be anything.
            with anyio.fail_after(2 * self._options.timeout):
                await self._exchange(way, batches)
        except Exception as error:  # noqa: BLE001 - whatever the driver raises, a request goes on to the source
            if is_busy(error):
                self._busy(users)
            else:
                self.fault(error)
        else:
            self.success()

    async def _exchange(self, way: Way, batches: Sequence[Batch]) -> None:
        tokens = [self._token() for _ in batches]
        replies = await way.run([batch.call(token) for batch, token in zip(batches, tokens, strict=True)])
        failures: list[Exception] = []
        for batch, token, reply in zip(batches, tokens, replies, strict=True):
            try:
                batch.deliver(token, reply)
            except Exception as error:  # noqa: BLE001 - the other commands of the trip have their answers
                failures.append(error)
        if any(isinstance(failure, OutOfStep) for failure in failures):
            await way.put_in_step()
        if failures:
            raise failures[0]

    def _busy(self, users: int) -> None:
        self._counters.add("busy", REDIS, users)

    async def _probe(self, order: Callable[[], Order[Any]]) -> None:
        while True:
            await self._down.wait()
            self._down = anyio.Event()
            while self.breaker.is_open:
                await anyio.sleep(self._options.probe_every)
                if await self._works(order()):
                    self.success()

    async def _works(self, order: Order[Any]) -> bool:
        try:
            with anyio.fail_after(2 * self._options.timeout):
                await self._exchange(self.pool, [Batch(order)])
        except Exception:  # noqa: BLE001 - a probe that ends with its first surprise would leave Redis down for good
            return False
        return True

    async def _look_after(self) -> None:
        # A proxy leads an open connection to another server without closing it.
        trips = 0
        while True:
            await anyio.sleep(self._options.check_every)
            if not self.breaker.is_open:
                await self._check(self.pool)
            if self._own is not self.pool and self.lane.trips != trips and not self.breaker.is_open:
                trips = self.lane.trips
                await self._check(self._own)

    async def _check(self, way: Way) -> None:
        if not await self.take_place(self._options.pool_wait):
            return
        try:
            with anyio.fail_after(2 * self._options.timeout):
                await way.check()
        except Exception as error:  # noqa: BLE001 - a check that ends with its first surprise would be the last one
            if not is_busy(error):
                self.fault(error)
        finally:
            self.places.release()
