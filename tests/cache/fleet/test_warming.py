"""Whether an instance that starts has in memory whom the fleet is asked for, and nobody it should not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import anyio
import pytest
import redis

from ctxmiddleware.cache.names import digest_of
from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.cache.shared import Recalled
from tests.backends import asyncio_only
from tests.cache.rig import ADA, BOB, STEADY, Database, Instance, instance, redis_tier

pytestmark = [pytest.mark.anyio, asyncio_only]

CROWD = [("", f"user{number}") for number in range(250)]


@pytest.fixture
def server(redis_url: str) -> Any:
    """A client of the server, for what is done by hand."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


async def _asked(one: Instance, *keys: tuple[str, str]) -> None:
    """Let users be asked for, twice, and told of."""
    for key in keys:
        await one.get(key)
        await one.get(key)
    assert one.cache.warming is not None
    await one.cache.warming.remember()


async def _warm(one: Instance) -> int:
    assert one.cache.warming is not None
    return await one.cache.warming.recall()


def _held(one: Instance, *keys: tuple[str, str]) -> list[str | None]:
    found = [one.cache.peek(key) for key in keys]
    return [None if entry is None else entry.value for entry in found]


async def test_a_new_instance_has_the_hot_ones_without_a_load(redis_url: str) -> None:
    """All whom the fleet was asked for answer from memory, each with their own context."""
    async with instance(url=redis_url) as old:
        await _asked(old, *CROWD, ("acme", "user1"))
        async with instance(url=redis_url) as new:
            assert await _warm(new) == len(CROWD) + 1
            assert _held(new, *CROWD) == [f"{name} 1" for _, name in CROWD]
            assert _held(new, ("acme", "user1")) == ["user1 1"]
            assert new.database.calls == []
            assert new.counters.get("load", "warmed") == len(CROWD) + 1


async def test_the_last_asked_for_come_first_and_no_more_than_it_may(redis_url: str) -> None:
    """Where there is less room than there are users, those of long ago stay away."""
    async with instance(url=redis_url) as old:
        await _asked(old, *CROWD[:40])
        redis.Redis.from_url(redis_url).zadd(
            KeySpace("test", redis_tier(redis_url).codec.shape).hot(),
            {KeySpace("test", b"").called(key): 1 for key in CROWD[:20]},
        )
        for policy in (replace(STEADY, warm_users=20), replace(STEADY, max_users=20)):
            async with instance(url=redis_url, policy=policy) as new:
                assert await _warm(new) == 20
                assert _held(new, *CROWD[:40]) == [None] * 20 + [f"{name} 1" for _, name in CROWD[20:40]]


async def test_nobody_is_told_of_twice_who_was_not_asked_for_again(redis_url: str, server: Any) -> None:
    """Only those who were read since the last time are told of."""
    async with instance(url=redis_url) as old:
        await _asked(old, ADA, BOB)
        hot = KeySpace("test", redis_tier(redis_url).codec.shape).hot()
        server.delete(hot)
        await _asked(old, ADA)
        assert server.zcard(hot) == 1


async def test_none_is_what_it_asks_for_where_warming_is_off(redis_url: str) -> None:
    """`warm_users=0` leaves memory empty."""
    async with instance(url=redis_url) as old:
        await _asked(old, ADA)
        async with instance(url=redis_url, policy=replace(STEADY, warm_users=0)) as new:
            assert await _warm(new) == 0
            assert len(new.cache.memory) == 0


@pytest.mark.parametrize("name", [ADA[1], None], ids=["invalidate", "clear"])
async def test_whoever_was_invalidated_does_not_come_back(redis_url: str, name: str | None) -> None:
    """The value is still in Redis, under a generation that is no longer in force."""
    async with instance(url=redis_url) as old:
        await _asked(old, ADA, BOB)
        await old.cache.invalidate(name)
        async with instance(url=redis_url) as new:
            assert await _warm(new) == (1 if name else 0)
            assert _held(new, ADA) == [None]


@pytest.mark.parametrize("name", [ADA[1], None], ids=["invalidate", "clear"])
@pytest.mark.parametrize("by_itself", [True, False], ids=["here", "elsewhere"])
async def test_who_is_invalidated_while_memory_is_warmed_is_not_kept(
    redis_url: str,
    name: str | None,
    by_itself: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """The answer was read before the invalidation and arrives after it had returned."""
    async with instance(url=redis_url) as old, instance(url=redis_url) as new:
        await _asked(old, ADA, BOB)
        tier = new.redis
        assert tier is not None
        recall = tier.recall

        async def late(called: Sequence[bytes], keep_ms: int) -> Sequence[Recalled[str] | None]:
            found = await recall(called, keep_ms)
            await (new if by_itself else old).cache.invalidate(name)
            return found

        assert new.cache.warming is not None
        new.cache.warming._shared = Late(tier, late)  # type: ignore[assignment]  # all it is asked for
        assert await _warm(new) == (1 if name else 0)
        assert _held(new, ADA) == [None]


class Late:
    """A tier whose answers about the hot ones are as late as the test wants them."""

    def __init__(self, tier: Any, recall: Any) -> None:
        self.hottest, self.recall = tier.hottest, recall


async def test_what_is_in_memory_keeps_its_place(redis_url: str) -> None:
    """A context that was loaded since is not replaced by an older one."""
    async with instance(url=redis_url) as old:
        await _asked(old, ADA)
        async with instance(Database({ADA[1]: "newer"}), url=redis_url) as new:
            await old.cache.invalidate(ADA[1])
            assert await new.value() == "newer"
            assert await _warm(new) == 0
            assert _held(new, ADA) == ["newer"]


async def test_a_value_under_another_user_s_key_is_nobody_s(redis_url: str, server: Any) -> None:
    """Whose it says it is counts only under that user's own key."""
    keys = KeySpace("test", redis_tier(redis_url).codec.shape)
    async with instance(url=redis_url) as old:
        await _asked(old, ADA, BOB)
        server.copy(keys.of(ADA).value, keys.of(BOB).value, replace=True)
        server.zadd(keys.hot(), {b"garbage": 9e12, b"\x00" * 32: 9e12})
        async with instance(url=redis_url) as new:
            assert await _warm(new) == 1
            assert _held(new, ADA, BOB) == [f"{ADA[1]} 1", None]


async def test_what_is_past_its_time_is_not_taken(redis_url: str) -> None:
    """Kept in Redis for the time the source may be down, it is of no use to whoever starts."""
    async with instance(Database(ttl=0.05), url=redis_url) as old:
        await _asked(old, ADA)
        await anyio.sleep(0.1)
        async with instance(url=redis_url) as new:
            assert await _warm(new) == 0


async def test_without_redis_nothing_is_warmed_and_nothing_breaks() -> None:
    """There is nobody to ask, now or later."""
    async with instance(url="redis://127.0.0.1:1/0") as one:
        assert await _warm(one) == 0
        assert one.cache.warming is not None
        await one.get()
        await one.cache.warming.remember()


@pytest.mark.parametrize("name", [ADA[1], None], ids=["invalidate", "clear"])
async def test_whose_invalidation_is_announced_is_not_taken(redis_url: str, name: str | None) -> None:
    """Of what is read between the announcement and the new generation nobody knows on which side of it it is."""
    async with instance(url=redis_url) as old, instance(url=redis_url) as new:
        await _asked(old, ADA, BOB)
        new.cache.hearing.expect(None if name is None else digest_of(name), b"token")
        assert await _warm(new) == (1 if name else 0)
        assert _held(new, ADA) == [None]
        new.cache.hearing.forget(None if name is None else digest_of(name), None, b"token")
        assert await _warm(new) == (1 if name else 2)
