"""Whether concurrent misses of different users travel together, and harm each other no more than alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from ctxmiddleware.cache.base import Ask, Fetched
from ctxmiddleware.errors import SourceError, SourceUnavailable
from tests.cache.rig import ADA, BOB, STEADY, Database, Instance, instance
from tests.waiting import eventually_async

pytestmark = pytest.mark.anyio
NO_NUMBERS: list[Any] = ["60", timedelta(seconds=5)]
CROWD = [("", f"user{number}") for number in range(250)]


class Patience:
    """The time after which a call is slow: it is over when the test ends it, for the calls that are under way then."""

    def __init__(self) -> None:
        self._over = anyio.Event()

    async def __call__(self, seconds: float) -> None:
        """Wait until it is over."""
        await self._over.wait()

    def end(self) -> None:
        """Let the calls under way be slow."""
        over, self._over = self._over, anyio.Event()
        over.set()


async def _ask_all(one: Instance, keys: Sequence[tuple[str, str]] = CROWD) -> dict[str, object]:
    """Ask for all at once, and return each one's value or error."""
    answers: dict[str, object] = {}

    async def ask(key: tuple[str, str]) -> None:
        try:
            answers[key[1]] = await one.value(key)
        except SourceError as error:
            answers[key[1]] = error

    async with anyio.create_task_group() as callers:
        for key in keys:
            callers.start_soon(ask, key)
    return answers


async def test_misses_of_one_moment_travel_in_full_batches() -> None:
    """Two hundred and fifty users who miss together cost three calls, and each gets what is its own."""
    database = Database(batch_size=100)
    async with instance(database) as one:
        answers = await _ask_all(one)
    assert answers == {name: f"{name} 1" for _, name in CROWD}
    assert sorted(len(batch) for batch in database.batches) == [50, 100, 100]
    assert one.counters.get("load", "calls") == 3
    assert one.counters.get("load", "started") == 250


async def test_few_batches_are_in_flight_and_later_misses_gather() -> None:
    """While two calls are under way whoever misses waits, and travels with all who came meanwhile."""
    database = Database(batch_size=100)
    async with instance(database, sleep=Patience()) as one, anyio.create_task_group() as callers:
        database.hold()
        for number in range(2):
            callers.start_soon(one.get, CROWD[number])
            await database.started(number + 1)
        for key in CROWD[2:52]:
            callers.start_soon(one.get, key)
        await eventually_async(lambda: len(one.cache.flights) == 52)
        await anyio.wait_all_tasks_blocked()
        assert [len(batch) for batch in database.batches] == [1, 1]
        database.release()
        await eventually_async(lambda: len(database.calls) == 52)
    assert [len(batch) for batch in database.batches] == [1, 1, 50]
    assert database.most_at_once == 2


async def test_a_slow_call_gives_its_turn_away() -> None:
    """Two calls that hang keep nobody waiting for long: later misses go on beside them."""
    database, patience = Database(batch_size=100), Patience()
    async with instance(database, sleep=patience) as one, anyio.create_task_group() as callers:
        database.hold()
        callers.start_soon(one.get, ADA)
        await database.started(1)
        callers.start_soon(one.get, BOB)
        await database.started(2)
        callers.start_soon(one.get, CROWD[0])
        await eventually_async(lambda: len(one.cache.flights) == 3)
        await anyio.wait_all_tasks_blocked()
        assert [len(batch) for batch in database.batches] == [1, 1]
        patience.end()
        await database.started(3)
        assert [len(batch) for batch in database.batches] == [1, 1, 1]
        database.release()


async def _two_slow_and_two_more(one: Instance, patience: Patience, callers: TaskGroup) -> None:
    """Let the source hold four calls, the first two of which are slow."""
    one.database.hold()
    for number in range(4):
        if number == 2:
            await anyio.wait_all_tasks_blocked()
            patience.end()
        callers.start_soon(one.get, CROWD[number])
        await one.database.started(number + 1)


async def test_once_slow_calls_have_ended_later_misses_gather_again() -> None:
    """A call that gave its turn away has none to give away any more when it is over."""
    database, patience = Database(batch_size=100), Patience()
    async with instance(database, sleep=patience) as one, anyio.create_task_group() as callers:
        await _two_slow_and_two_more(one, patience, callers)
        database.release()
        await eventually_async(lambda: len(one.cache.flights) == 0)
        database.hold()
        for number in range(4, 6):
            callers.start_soon(one.get, CROWD[number])
            await database.started(number + 1)
        for key in CROWD[6:20]:
            callers.start_soon(one.get, key)
        await eventually_async(lambda: len(one.cache.flights) == 16)
        await anyio.wait_all_tasks_blocked()
        assert [len(batch) for batch in database.batches] == [1] * 6
        database.release()
    assert [len(batch) for batch in database.batches] == [1] * 6 + [14]


async def test_a_slow_call_gives_one_turn_away_and_not_more() -> None:
    """However many wait, beside two slow calls there are two that are not; the rest gathers."""
    database, patience = Database(batch_size=1000), Patience()
    async with instance(database, sleep=patience) as one, anyio.create_task_group() as callers:
        await _two_slow_and_two_more(one, patience, callers)
        for key in CROWD[4:9]:
            callers.start_soon(one.get, key)
        await eventually_async(lambda: len(one.cache.flights) == 9)
        await anyio.wait_all_tasks_blocked()
        assert len(database.batches) == 4
        database.release()


async def test_slow_calls_never_pass_the_limit() -> None:
    """However slow the source is, no more than `max_loads` calls are in flight."""
    database, patience, policy = Database(batch_size=10), Patience(), replace(STEADY, max_loads=3)
    async with instance(database, policy=policy, sleep=patience) as one, anyio.create_task_group() as callers:
        database.hold()
        for key in CROWD[:60]:
            callers.start_soon(one.get, key)
        for calls in (20, 30, 30):
            await database.started(calls)
            await anyio.wait_all_tasks_blocked()
            assert len(database.calls) == calls
            patience.end()
        database.release()
    assert database.most_at_once == 3
    assert len(database.calls) == 60


async def test_one_bad_row_is_one_user_s_error() -> None:
    """The others of its batch are served and kept; the next request of that user asks again."""
    database = Database(batch_size=100, bad={"user7": SourceError("row is broken")})
    async with instance(database) as one:
        answers = await _ask_all(one, CROWD[:20])
        assert str(answers.pop("user7")) == "row is broken"
        assert answers == {name: f"{name} 1" for _, name in CROWD[:20] if name != "user7"}
        database.bad.clear()
        assert await one.value(("", "user7")) == "user7 1"
        assert one.counters.get("load", "failed") == 1


class Awkward:
    """A value that nothing can be asked of."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> object:
        raise RuntimeError("not now")


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (Fetched("7", "db", NO_NUMBERS[0]), "TypeError"),
        (Fetched("7", "db", NO_NUMBERS[1]), "TypeError"),
        (Fetched("7", "db", math.nan), "7"),
        (Fetched(Awkward(), "db"), "Awkward"),
    ],
    ids=["text", "timedelta", "nan", "awkward"],
)
async def test_one_value_that_cannot_be_kept_is_one_user_s_affair(bad: Fetched[Any], told: str) -> None:
    """With a time to live that is no number it is an error, unfit for memory it is served; the others are kept."""

    class Mixed(Database):
        async def load(self, asks: Sequence[Ask]) -> list[Fetched[str] | Exception]:
            answers = await super().load(asks)
            return [bad if ask.key[1] == "user7" else each for ask, each in zip(asks, answers, strict=True)]

    async with instance(Mixed(batch_size=100)) as one:
        answers: dict[str, Any] = {}

        async def ask(key: tuple[str, str]) -> None:
            try:
                answers[key[1]] = await one.value(key)
            except TypeError as error:
                answers[key[1]] = error

        async with anyio.create_task_group() as callers:
            for key in CROWD[:20]:
                callers.start_soon(ask, key)
        odd = answers.pop("user7")
        assert told in (type(odd).__name__, odd)
        assert answers == {name: f"{name} 1" for _, name in CROWD[:20] if name != "user7"}
        assert len(one.cache.memory) == 19 + (told == "7")
        assert len(one.cache.flights) == 0


async def test_what_cannot_be_kept_takes_its_former_value_with_it() -> None:
    """What was kept before is no longer the truth: the next request asks the source again."""
    database = Database()
    async with instance(database) as one:
        await one.get()
        one.clock.advance(899)
        awkward: Any = Awkward()

        async def load(moved_ago: float) -> Fetched[str]:
            return Fetched(awkward, "db")

        one.clock.advance(1)
        assert (await one.get(ADA, load)).entry.value is awkward
        assert len(one.cache.memory) == 0
        assert await one.value() == f"{ADA[1]} 1"


async def test_a_batch_that_fails_as_a_whole_fails_each_with_an_error_of_its_own() -> None:
    """No two callers share an exception object."""
    database = Database(batch_size=100, error=SourceUnavailable("down", retry_after=3))
    async with instance(database) as one:
        answers = await _ask_all(one, CROWD[:50])
    errors = [error for error in answers.values() if isinstance(error, SourceUnavailable)]
    assert len({id(error) for error in errors}) == 50
    assert {(str(error), error.retry_after) for error in errors} == {("down", 3)}


async def test_a_user_invalidated_while_its_batch_is_loaded_is_loaded_again_alone() -> None:
    """The rest of the batch is kept; what was asked for before the invalidation is nobody's answer."""
    database = Database(batch_size=100)
    answers: dict[str, object] = {}
    async with instance(database) as one:
        database.hold()
        async with anyio.create_task_group() as callers:

            async def ask() -> None:
                answers.update(await _ask_all(one, CROWD[:10]))

            callers.start_soon(ask)
            await database.started(10)
            database.rows["user3"] = "new"
            await one.cache.invalidate("user3")
            database.release()
        assert answers == {name: "new" if name == "user3" else f"{name} 1" for _, name in CROWD[:10]}
    assert database.batches[1:] == [("user3",)]


async def test_who_was_invalidated_while_waiting_for_its_turn_is_not_asked_for_twice() -> None:
    """A load that has not left yet makes room for the one that follows the invalidation."""
    database = Database()
    async with instance(database, policy=replace(STEADY, max_loads=1)) as one, anyio.create_task_group() as callers:
        database.hold()
        callers.start_soon(one.get, BOB)
        await database.started(1)
        callers.start_soon(one.get, ADA)
        await eventually_async(lambda: len(one.cache.flights) == 2)
        await anyio.wait_all_tasks_blocked()
        await one.cache.invalidate(ADA[1])
        database.release()
        await eventually_async(lambda: len(one.cache.flights) == 0)
    assert database.calls == [BOB[1], ADA[1]]


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    """Beyond `max_waiting` a miss is told so instead of waiting; whoever waits already is served."""
    database = Database()
    policy = replace(STEADY, max_loads=1, max_waiting=2)
    async with instance(database, policy=policy) as one, anyio.create_task_group() as callers:
        database.hold()
        for number in range(3):
            callers.start_soon(one.get, CROWD[number])
            await eventually_async(lambda count=number: len(one.cache.flights) == count + 1)  # type: ignore[misc]
            await anyio.wait_all_tasks_blocked()
        with pytest.raises(SourceUnavailable, match="2 loads wait") as told:
            await one.get(ADA)
        assert told.value.retry_after == 1
        database.release()
        await eventually_async(lambda: len(database.calls) == 3)
    assert one.counters.get("load", "refused") == 1


async def test_where_the_queue_is_full_what_is_known_stands_in() -> None:
    """A user whose time is over is served stale rather than refused."""
    database = Database()
    policy = replace(STEADY, max_loads=1, max_waiting=1)
    async with instance(database, policy=policy) as one, anyio.create_task_group() as callers:
        await one.get(ADA)
        one.clock.advance(900)
        database.hold()
        for number in range(2):
            callers.start_soon(one.get, CROWD[number])
            await eventually_async(lambda count=number: len(one.cache.flights) == count + 1)  # type: ignore[misc]
            await anyio.wait_all_tasks_blocked()
        assert (await one.get(ADA)).stale
        database.release()


async def test_who_waits_too_long_for_a_turn_is_told_so() -> None:
    """A load that did not come to its turn within `load_timeout` is not made at all."""
    database = Database()
    policy, release = replace(STEADY, max_loads=1, load_timeout=1.0), anyio.Event()
    async with (
        instance(database, policy=policy, grace_seconds=60.0) as one,
        anyio.create_task_group() as callers,
    ):

        async def hang(moved_ago: float) -> Fetched[str]:
            with anyio.CancelScope(shield=True):
                await release.wait()  # a source that does not heed its time
            return Fetched("late", "db")

        async def ask() -> None:
            with pytest.raises(SourceUnavailable, match="turn in time"):
                await one.get(ADA)

        callers.start_soon(one.get, BOB, hang)
        await eventually_async(lambda: one.counters.get("load", "calls") == 1)
        callers.start_soon(ask)
        await eventually_async(lambda: len(one.cache.flights) == 2)
        await anyio.sleep(1.01)  # the time for its turn is over then, however late this goes on
        release.set()
    assert database.calls == []


async def test_an_answer_of_the_wrong_length_harms_its_batch_only() -> None:
    """A loader that answers for fewer than it was asked fails its callers instead of mixing them up."""

    class Short(Database):
        async def load(self, asks: Sequence[Ask]) -> list[Fetched[str] | Exception]:
            return (await super().load(asks))[:-1]

    async with instance(Short(batch_size=100)) as one:
        with pytest.raises(ValueError, match="shorter"):
            await one.get(ADA)


async def test_at_shut_down_whoever_waits_for_a_turn_is_told() -> None:
    """A load that never left is ended with the ones that are under way."""
    database = Database()
    errors: list[str] = []
    policy = replace(STEADY, max_loads=1)
    async with anyio.create_task_group() as callers, instance(database, policy=policy, drain_seconds=0.02) as one:

        async def ask(key: tuple[str, str]) -> None:
            with pytest.raises(SourceUnavailable) as told:
                await one.get(key)
            errors.append(str(told.value))

        database.hold()
        for key in CROWD[:3]:
            callers.start_soon(ask, key)
        await eventually_async(lambda: len(one.cache.flights) == 3)
    assert errors == ["the load was cancelled: the application is shutting down"] * 3
    assert len(one.cache.flights) == 0
