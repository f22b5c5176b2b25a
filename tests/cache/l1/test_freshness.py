"""Whether memory alone serves what it should, for as long as it should."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from ctxmiddleware.cache.failsafe import PAUSE_SECONDS
from ctxmiddleware.errors import SourceError, SourceUnavailable
from tests.cache.rig import ADA, STEADY, Database, instance

pytestmark = pytest.mark.anyio
DOWN = SourceUnavailable("down")


async def test_is_served_for_its_time_and_then_loaded_again() -> None:
    """One load serves until the time to live ends, whatever happens at the source."""
    database = Database()
    async with instance(database) as one:
        assert (await one.get()).origin == "db"
        database.rows[ADA[1]] = "changed"
        one.clock.advance(899.9)
        found = await one.get()
        assert (found.origin, found.entry.value, found.stale) == ("memory", f"{ADA[1]} 1", False)
        one.clock.advance(0.1)
        assert await one.value() == "changed"


async def test_an_unknown_user_is_remembered_for_a_short_time() -> None:
    """Unknown is an answer too, with a time to live of its own."""
    database = Database({ADA[1]: None})
    async with instance(database) as one:
        assert await one.value() is None
        database.rows[ADA[1]] = "hired"
        one.clock.advance(59.9)
        assert await one.value() is None
        one.clock.advance(0.1)
        assert await one.value() == "hired"


@pytest.mark.parametrize("ttl", [5.0, 5000.0])
async def test_the_source_s_own_time_is_obeyed(ttl: float) -> None:
    """A source that knows better than the policy shortens and lengthens."""
    database = Database(ttl=ttl)
    async with instance(database) as one:
        await one.get()
        one.clock.advance(ttl - 0.1)
        assert (await one.get()).origin == "memory"
        one.clock.advance(0.1)
        assert (await one.get()).origin == "db"


@pytest.mark.parametrize("ttl", [0.0, -5.0])
async def test_what_is_past_its_time_already_is_loaded_each_time(ttl: float) -> None:
    """A value whose own time has passed is answered with and never served again while the source answers."""
    database = Database(ttl=ttl)
    async with instance(database) as one:
        assert [(await one.get()).origin for _ in range(3)] == ["db"] * 3
        database.error = DOWN
        assert (await one.get()).stale


async def test_while_the_source_is_down_what_is_known_is_served_marked_stale(caplog: pytest.LogCaptureFixture) -> None:
    """Up to `stale_for` past its time and not a moment longer; marked, counted and logged, without a name."""
    database = Database()
    async with instance(database, policy=replace(STEADY, ttl=900, stale_for=300)) as one:
        await one.get()
        database.error = DOWN
        one.clock.advance(900)
        with caplog.at_level(logging.WARNING, "ctxmiddleware"):
            found = await one.get()
        assert (found.stale, found.origin, found.entry.value) == (True, "memory", f"{ADA[1]} 1")
        one.clock.advance(299.9)
        assert (await one.get()).stale
        one.clock.advance(0.1)
        with pytest.raises(SourceUnavailable):
            await one.get()
    assert "past their time" in caplog.text
    assert "@" not in caplog.text


async def test_a_failing_source_is_asked_once_a_pause_and_not_once_a_request() -> None:
    """While something stands in, the source is tried again only after a pause; its first answer ends the staleness."""
    database = Database()
    async with instance(database) as one:
        await one.get()
        database.error = DOWN
        one.clock.advance(900)
        for _ in range(20):
            assert (await one.get()).stale
        assert len(database.calls) == 2
        one.clock.advance(PAUSE_SECONDS)
        assert (await one.get()).stale
        assert len(database.calls) == 3
        database.error = None
        one.clock.advance(PAUSE_SECONDS)
        found = await one.get()
        assert (found.stale, found.origin) == (False, "db")
    counters = one.counters
    assert counters.get("hit", "memory") == 0
    assert counters.get("miss", "memory") == 23


async def test_nothing_stands_in_past_its_end_even_within_a_pause() -> None:
    """The pause between tries does not lengthen how long a stale context lives."""
    database = Database()
    async with instance(database) as one:
        await one.get()
        database.error = DOWN
        one.clock.advance(1199.5)
        assert (await one.get()).stale
        one.clock.advance(0.5)
        with pytest.raises(SourceUnavailable):
            await one.get()


async def test_an_invalidated_user_is_not_served_stale() -> None:
    """What was invalidated is gone, source or no source, within a pause as well."""
    database = Database()
    async with instance(database) as one:
        await one.get()
        database.error = DOWN
        one.clock.advance(900)
        assert (await one.get()).stale
        await one.cache.invalidate(ADA[1])
        with pytest.raises(SourceUnavailable):
            await one.get()


async def test_an_error_other_than_unavailable_is_told_even_where_something_is_known() -> None:
    """A source that answers with something wrong is not down: hiding it would hide it for `stale_for`."""
    database = Database()
    async with instance(database) as one:
        await one.get()
        one.clock.advance(900)
        database.error = SourceError("row is broken")
        with pytest.raises(SourceError, match="broken"):
            await one.get()


async def test_an_unknown_user_is_not_served_stale() -> None:
    """There is no context to stand in for the one that a new employee may have by now."""
    database = Database({ADA[1]: None})
    async with instance(database) as one:
        await one.get()
        database.error = DOWN
        one.clock.advance(60)
        with pytest.raises(SourceUnavailable):
            await one.get()


async def test_a_source_too_slow_is_stood_in_for() -> None:
    """A load that takes too long counts as a source that is down."""
    database = Database()
    async with instance(database, policy=replace(STEADY, load_timeout=1.0)) as one:
        await one.get()
        one.clock.advance(900)
        database.hold()
        assert (await one.get()).stale


async def test_without_grace_nothing_stands_in() -> None:
    """With `stale_for=0` a source that is down is an error at once."""
    database = Database()
    async with instance(database, policy=replace(STEADY, stale_for=0)) as one:
        await one.get()
        database.error = DOWN
        one.clock.advance(900)
        with pytest.raises(SourceUnavailable):
            await one.get()


async def test_an_entry_too_large_for_memory_is_answered_all_the_same() -> None:
    """What memory cannot keep is loaded each time and served each time."""
    database = Database()
    async with instance(database, policy=replace(STEADY, max_bytes=10)) as one:
        assert [await one.value() for _ in range(2)] == [f"{ADA[1]} 1"] * 2
        assert len(one.cache.memory) == 0
    assert len(database.calls) == 2


async def test_what_an_entry_weighs_counts_against_the_bound() -> None:
    """Bytes in memory are those of the keys and entries it holds."""
    database = Database({ADA[1]: "x" * 10_000})
    async with instance(database) as one:
        await one.get()
        assert 10_000 < one.cache.memory.bytes < 12_000
