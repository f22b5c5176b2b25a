"""Whether what is asked at the same time travels together, and whether nobody there can harm another."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from ctxmiddleware.cache.redis.lane import TRIP_BYTES, TRIP_USERS, Lane
from ctxmiddleware.cache.redis.lua.leases import PROLONG
from ctxmiddleware.cache.redis.lua.values import LOOK
from ctxmiddleware.cache.redis.order import MAX_BYTES, MAX_USERS, Errand, Order, OutOfStep, gathered, shared_out
from ctxmiddleware.testing import FakeClock
from tests.waiting import eventually_async

pytestmark = pytest.mark.anyio


def _order(users: int = 1, *, size: int = 0, keep: int = 1, at: float | None = None) -> Order[Any]:
    errands = [Errand((f"key{number}",), (b"x" * size,) if size else ()) for number in range(users)]
    return Order(PROLONG, errands, (keep,), time.monotonic() if at is None else at)


class Ferry:
    """Carries orders when the test lets it, and remembers who travelled together."""

    def __init__(self) -> None:
        self.trips: list[list[Order[Any]]] = []
        self.given_up = 0
        self._gate: anyio.Event | None = None

    async def travel(self, orders: Sequence[Order[Any]]) -> None:
        self.trips.append(list(orders))
        if self._gate is not None:
            await self._gate.wait()
        for order in orders:
            order.answers = [1] * len(order.errands)

    def hold(self) -> None:
        self._gate = anyio.Event()

    def release(self) -> None:
        gate, self._gate = self._gate, None
        assert gate is not None
        gate.set()

    def give_up(self, users: int) -> None:
        self.given_up += users


@asynccontextmanager
async def _lane(
    patience: float = 5.0, longest: float = 10.0, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[tuple[Lane, Ferry]]:
    ferry = Ferry()
    lane = Lane(ferry.travel, ferry.give_up, patience=patience, longest=longest, clock=clock)
    async with anyio.create_task_group() as tasks:
        lane.open(tasks)
        yield lane, ferry
        tasks.cancel_scope.cancel()


async def test_what_is_placed_in_one_turn_travels_together() -> None:
    """However many ask before the event loop comes round, it is one trip; an idle lane makes none."""
    async with _lane() as (lane, ferry):
        before = lane.is_idle
        orders = [_order() for _ in range(50)]
        for order in orders:
            lane.place(order)
        assert (before, lane.is_idle) == (True, False)
        for order in orders:
            await order.done.wait()
        assert ferry.trips == [orders]
        assert all(order.answers == [1] for order in orders)
        await eventually_async(lambda: lane.is_idle)
        assert lane.trips == 1


async def test_whoever_comes_during_a_trip_travels_on_the_next() -> None:
    """What gathers while a command is under way goes together as soon as it is back."""
    async with _lane() as (lane, ferry):
        ferry.hold()
        first, later = _order(), [_order() for _ in range(3)]
        lane.place(first)
        await eventually_async(lambda: len(ferry.trips) == 1)
        assert repr(lane) == "<Lane: 1 orders travelling, 0 waiting>"
        for order in later:
            lane.place(order)
            await anyio.lowlevel.checkpoint()
        assert len(ferry.trips) == 1
        ferry.release()
        for order in later:
            await order.done.wait()
        assert ferry.trips == [[first], later]


async def test_a_cancelled_caller_changes_nothing_for_the_rest() -> None:
    """Callers that go away, while they wait and while they travel, leave the trip and its answers alone."""
    async with _lane() as (lane, ferry):
        ferry.hold()
        orders = [_order() for _ in range(6)]
        answered: list[Order[Any]] = []

        async def ask(order: Order[Any]) -> None:
            lane.place(order)
            await order.done.wait()
            answered.append(order)

        scopes = [anyio.CancelScope() for _ in orders]

        async def caller(number: int) -> None:
            with scopes[number]:
                await ask(orders[number])

        async with anyio.create_task_group() as callers:
            for number in range(3):
                callers.start_soon(caller, number)
            await eventually_async(lambda: len(ferry.trips) == 1)
            for number in range(3, 6):
                callers.start_soon(caller, number)
            await anyio.lowlevel.checkpoint()
            scopes[0].cancel()
            scopes[3].cancel()
            await anyio.lowlevel.checkpoint()
            ferry.release()
        assert set(answered) == {orders[number] for number in (1, 2, 4, 5)}
        assert all(order.answers == [1] for order in answered)


async def test_a_line_that_stands_still_is_left_and_counted() -> None:
    """A trip that does not end keeps its own travellers only; those behind it go after `patience`, with no answer."""
    async with _lane(patience=0.02) as (lane, ferry):
        ferry.hold()
        travelling, waiting = _order(), [_order(3), _order(4)]
        lane.place(travelling)
        await eventually_async(lambda: len(ferry.trips) == 1)
        for order in waiting:
            lane.place(order)
        for order in waiting:
            await order.done.wait()
        assert [order.answers for order in waiting] == [None, None]
        assert ferry.given_up == 7
        assert not travelling.done.is_set()
        ferry.release()
        await travelling.done.wait()
        assert travelling.answers == [1]
        after = _order()
        lane.place(after)
        await after.done.wait()
        assert ferry.trips == [[travelling], [after]]


async def test_a_line_that_moves_is_waited_for() -> None:
    """Nobody is turned away because many came at once, as long as one trip after the other ends."""
    clock = FakeClock()
    async with _lane(patience=0.01, clock=clock) as (lane, ferry):
        orders = [_order(MAX_USERS, at=clock()) for _ in range(3 * TRIP_USERS // MAX_USERS)]
        ferry.hold()
        for order in orders:
            lane.place(order)
        for trips in (1, 2, 3):
            await eventually_async(lambda trips=trips: len(ferry.trips) == trips)  # type: ignore[misc]
            clock.advance(0.008)
            # Time for the lane to look who has waited too long.
            await anyio.sleep(0.03)
            ferry.release()
            ferry.hold()
        for order in orders:
            await order.done.wait()
        assert ferry.given_up == 0
        assert [len(trip) for trip in ferry.trips] == [TRIP_USERS // MAX_USERS] * 3


async def test_no_line_is_waited_in_for_longer_than_an_answer_may_take() -> None:
    """Even where it moves, whoever is too far behind goes to the source."""
    async with _lane(patience=60.0, longest=0.05) as (lane, ferry):
        ferry.hold()
        first, second = _order(), _order(2)
        lane.place(first)
        await eventually_async(lambda: len(ferry.trips) == 1)
        lane.place(second)
        with anyio.fail_after(30):
            await second.done.wait()
        assert (second.answers, ferry.given_up) == (None, 2)
        ferry.release()


@pytest.mark.parametrize("size", [0, MAX_BYTES // MAX_USERS // 2], ids=["users", "bytes"])
async def test_a_trip_is_bounded(size: int) -> None:
    """More users, or more bytes, than one answer's time is good for travel on the next trip; nothing is left behind."""
    async with _lane() as (lane, ferry):
        orders = [_order(MAX_USERS, size=2 * size) for _ in range(12)]
        for order in orders:
            lane.place(order)
        for order in orders:
            await order.done.wait()
        assert [order for trip in ferry.trips for order in trip] == orders
        for trip in ferry.trips:
            assert sum(len(order.errands) for order in trip) <= TRIP_USERS
            assert sum(order.size for order in trip) <= TRIP_BYTES
        assert len(ferry.trips) == 3


async def test_closing_leaves_nobody_waiting() -> None:
    """Whoever travels, waits or comes too late is told that nobody can say."""
    orders = [_order() for _ in range(3)]
    async with _lane() as (lane, ferry):
        ferry.hold()
        lane.place(orders[0])
        await eventually_async(lambda: len(ferry.trips) == 1)
        lane.place(orders[1])
    lane.place(orders[2])
    for order in orders:
        with anyio.fail_after(30):
            await order.done.wait()
        assert order.answers is None


async def test_what_is_given_up_is_sent_back_at_once() -> None:
    """When Redis is given up, those who wait for the next trip are not kept for it."""
    async with _lane() as (lane, ferry):
        ferry.hold()
        first, second = _order(), _order()
        lane.place(first)
        await eventually_async(lambda: len(ferry.trips) == 1)
        lane.place(second)
        lane.send_back()
        with anyio.fail_after(30):
            await second.done.wait()
        assert second.answers is None
        ferry.release()
        await first.done.wait()
        assert first.answers == [1]


def test_orders_of_one_kind_share_commands_of_a_hundred_users() -> None:
    """A script stays short; each kind and each time to live has commands of its own."""
    looks = [Order(LOOK, [Errand(("key",))] * 30, (1,), 0.0) for _ in range(10)]
    orders = [*looks, _order(10), _order(10), _order(10, keep=2)]
    sizes = [len(batch.call(b"token").keys) for batch in gathered(orders)]
    assert sorted(sizes) == sorted([90, 90, 90, 30, 20, 10])


def test_large_values_do_not_share_a_command() -> None:
    """A command that would hold Redis up with its bytes is parted, and one value alone always travels."""
    orders = [_order(size=MAX_BYTES // 2 + 1) for _ in range(3)] + [_order(size=4 * MAX_BYTES)]
    assert [len(batch.call(b"token").keys) for batch in gathered(orders)] == [1, 1, 1, 1]


def test_each_order_gets_its_own_answers() -> None:
    """What came back in one piece is handed out in the order it was asked."""
    orders = [_order(users) for users in (1, 3, 2)]
    (batch,) = gathered(orders)
    batch.deliver(b"token", [b"token", [1, 0, 1, 1, 0, 0]])
    assert [order.answers for order in orders] == [[1], [0, 1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ([b"other", [1, 1]], OutOfStep),
        ([b"token", [1]], ConnectionError),
        ([b"token", [1, 1, 1]], ConnectionError),
        ([b"token", ["1", "1"]], ValueError),
        ([b"token"], ValueError),
        (b"OK", ValueError),
        (None, ValueError),
        (RuntimeError("what Redis said"), RuntimeError),
    ],
)
def test_another_s_answer_is_nobody_s(reply: object, error: type[Exception]) -> None:
    """An answer to another call, for another number of users or of another form is an error, and no answer."""
    (batch,) = gathered([order := _order(2)])
    with pytest.raises(error):
        batch.deliver(b"token", reply)
    assert order.answers is None


def test_an_order_carries_no_more_bytes_than_a_command_may() -> None:
    """A hundred large contexts travel in several commands, in their order; one too large for any by itself."""
    sizes = [100, MAX_BYTES, MAX_BYTES // 2, MAX_BYTES // 2, 1, MAX_BYTES + 1, 5]
    errands = [Errand(("{a}",), (b"x" * size,)) for size in sizes]
    assert [places for _, places in shared_out(errands, apart=False)] == [[0], [1], [2, 3], [4], [5], [6]]
