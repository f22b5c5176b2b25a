"""Whether two instances go on finding each other's values while the key that seals them is replaced."""

from __future__ import annotations

import base64

import pytest

from ctxmiddleware.cache.redis.seal import Seal
from ctxmiddleware.secret import Secret
from tests.backends import asyncio_only
from tests.cache.rig import ADA, BOB, Database, instance

pytestmark = [pytest.mark.anyio, asyncio_only]

OLD, NEW = (Secret(base64.b64encode(bytes(range(start, start + 32))).decode()) for start in (0, 100))


@pytest.mark.parametrize(
    ("before", "after"),
    [([OLD], [NEW, OLD]), ([OLD], [OLD, NEW]), ([OLD, NEW], [NEW, OLD]), ([NEW, OLD], [NEW])],
    ids=["the new one in front", "the new one behind", "from behind to the front", "the old one taken away"],
)
async def test_what_was_sealed_before_the_next_step_is_found_after_it(
    redis_url: str, before: list[Secret], after: list[Secret]
) -> None:
    """No step of a rotation costs a load: what one instance stored the next one finds."""
    database = Database()
    async with (
        instance(database, url=redis_url, seal=Seal(before)) as one,
        instance(database, url=redis_url, seal=Seal(after)) as two,
    ):
        assert [(await each.get()).origin for each in (one, two)] == ["db", "redis"]
        assert (one.counters.get("rejected", "redis"), two.counters.get("rejected", "redis")) == (0, 0)
    assert len(database.calls) == 1


@pytest.mark.parametrize("late", [[OLD], []], ids=["another key", "no key"])
async def test_whoever_does_not_know_the_new_key_yet_loads_for_itself(redis_url: str, late: list[Secret]) -> None:
    """While it is rolled out, and for two applications with keys of their own: a miss each, and no fault."""
    database = Database()
    async with (
        instance(database, url=redis_url, seal=Seal([NEW])) as one,
        instance(database, url=redis_url, seal=Seal(late) if late else None) as two,
        instance(database, url=redis_url, seal=Seal([NEW])) as three,
    ):
        assert [(await each.get()).origin for each in (one, two, three)] == ["db"] * 3
        assert [each.counters.get("rejected", "redis") for each in (one, two, three)] == [0, 1, 1]
        assert [each.counters.get("fault", "redis") for each in (one, two, three)] == [0] * 3
    assert len(database.calls) == 3


async def test_an_invalidation_needs_no_key(redis_url: str) -> None:
    """Generations are not sealed: in the middle of a rotation everybody still forgets whoever was invalidated."""
    database = Database()
    async with (
        instance(database, url=redis_url, seal=Seal([OLD])) as one,
        instance(database, url=redis_url, seal=Seal([NEW, OLD])) as two,
    ):
        for each in (one, two):
            assert [await each.value(key) for key in (ADA, BOB)] == [f"{ADA[1]} 1", f"{BOB[1]} 1"]
        database.rows[ADA[1]] = "new"
        await two.cache.invalidate(ADA[1])
        one.clock.advance(5)
        assert [await one.value(key) for key in (ADA, BOB)] == ["new", f"{BOB[1]} 1"]
        # The value was removed with the invalidation.
        assert [one.counters.get(event, "redis") for event in ("overtaken", "rejected")] == [0, 0]
