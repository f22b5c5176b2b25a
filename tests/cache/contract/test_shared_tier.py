"""Whether the tier that a fleet shares does what its protocol says: the real one, and the state machine's."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio
import pytest

from ctxmiddleware.cache.base import Fence, Key, Stored
from ctxmiddleware.cache.names import digest_of
from ctxmiddleware.cache.shared import Look, SharedTier, SharedTierFailed, Storing
from tests.backends import asyncio_only
from tests.cache.rig import ADA, BOB, look_one, store_one
from tests.waiting import eventually_async

from .sides import Open, Side, fake, real

pytestmark = [pytest.mark.anyio, asyncio_only, pytest.mark.parametrize("opened", [fake, real])]
KEEP_MS = 60_000
Road: TypeAlias = Callable[[Side], Awaitable[None]]
ACME_ADA: Key = ("acme", ADA[1])


async def look(tier: SharedTier[str], key: Key = ADA) -> Look[str]:
    """Look one key up where there is an answer."""
    found = await look_one(tier, key, KEEP_MS)
    assert found is not None
    return found


async def value(tier: SharedTier[str], key: Key = ADA) -> str | None:
    """Return what is stored for a key."""
    stored = (await look(tier, key)).stored
    return None if stored is None else stored.value


async def keep(
    tier: SharedTier[str], text: str | None = "old", key: Key = ADA, *, age: float = 0.0, fence: Fence | None = None
) -> bool | None:
    """Store a value under these generations, or under those in force."""
    under = fence or (await look(tier, key)).fence
    return await store_one(tier, key, under, Stored(text, "db", 50.0, age), KEEP_MS)


async def invalidated(side: Side) -> None:
    """One instance invalidates the user."""
    await side.other.invalidate(ADA[1], KEEP_MS)


async def cleared(side: Side) -> None:
    """One instance invalidates everybody."""
    await side.other.invalidate(None, KEEP_MS)


async def flushed(side: Side) -> None:
    """FLUSHALL."""
    side.flush()


async def lost(side: Side) -> None:
    """The user's generation is evicted."""
    side.lose(ADA[1])


async def everyone_lost(side: Side) -> None:
    """Everyone's generation is evicted."""
    side.lose(None)


async def expired(side: Side) -> None:
    """Nobody asked for so long that all have expired."""
    side.pass_time(2 * KEEP_MS / 1000 + 1)


async def failed_over(side: Side) -> None:
    """Another server takes over, with all that was there."""
    side.snapshot()
    side.fail_over()


async def failed_over_to_an_older_state(side: Side) -> None:
    """Another server takes over that has missed an invalidation."""
    side.snapshot()
    await side.one.invalidate(ADA[1], KEEP_MS)
    side.fail_over()


ROADS = pytest.mark.parametrize(
    "road",
    [
        invalidated, cleared, flushed, lost, everyone_lost, expired, failed_over, failed_over_to_an_older_state,
    ],
    ids=lambda road: road.__name__,
)  # fmt: skip


async def test_what_one_stores_the_other_finds(opened: Open) -> None:
    """A look creates the generations, all who look see the same ones, and under them a value is kept as it is."""
    async with opened() as side:
        first = await look(side.one)
        assert first == Look(first.fence, None, math.inf)
        assert await look(side.other) == first
        assert await keep(side.one, age=10.0) is True
        found = await look(side.other)
        assert (found.fence, found.moved_ago) == (first.fence, math.inf)
        assert found.stored is not None
        assert (found.stored.value, found.stored.origin, found.stored.lifetime) == ("old", "db", 50.0)
        assert found.stored.age == pytest.approx(10.0, abs=9)


async def test_that_a_user_is_unknown_is_a_value_too(opened: Open) -> None:
    """Nobody found and nothing stored are two answers."""
    async with opened() as side:
        await keep(side.one, None)
        stored = (await look(side.other)).stored
        assert stored is not None
        assert stored.value is None


@ROADS
async def test_what_was_stored_is_not_found_again(opened: Open, road: Road) -> None:
    """Whatever befell its generations, they are others from then on, and stay so for all."""
    async with opened() as side:
        before = (await look(side.one)).fence
        await keep(side.one)
        await road(side)
        after = await look(side.one)
        assert (after.fence != before, after.stored) == (True, None)
        assert (await look(side.other)).fence == after.fence


@ROADS
@pytest.mark.parametrize("looked", [False, True], ids=["absent", "made_again"])
async def test_what_was_loaded_before_is_not_stored_after(
    opened: Open,
    road: Road,
    looked: bool,  # noqa: FBT001 - pytest's
) -> None:
    """Compare and set: an absent generation is like none, and one made again is another."""
    async with opened() as side:
        before = (await look(side.one)).fence
        await road(side)
        if looked:
            await look(side.other)
        assert await keep(side.one, fence=before) is False
        assert await value(side.other) is None
        assert await keep(side.one, "new") is True
        assert await value(side.other) == "new"


async def test_no_generation_ever_comes_back(opened: Open) -> None:
    """Twenty of them, by every road, are all different."""
    async with opened() as side:
        seen = {(await look(side.one)).fence}
        for road in [invalidated, cleared, flushed, lost, everyone_lost] * 4:
            await road(side)
            seen.add((await look(side.one)).fence)
        assert len(seen) == 21


async def test_partitions_share_generations_and_not_values(opened: Open) -> None:
    """One user has a value for each partition; an invalidation reaches all of them."""
    async with opened() as side:
        await keep(side.one, "plain")
        await keep(side.one, "acme's", ACME_ADA)
        assert (await look(side.other)).fence == (await look(side.other, ACME_ADA)).fence
        assert [await value(side.other, key) for key in (ADA, ACME_ADA)] == ["plain", "acme's"]
        await side.one.invalidate(ADA[1], KEEP_MS)
        assert [await value(side.other, key) for key in (ADA, ACME_ADA)] == [None, None]


async def test_one_user_s_invalidation_is_nobody_else_s(opened: Open) -> None:
    """Another's generations, value and mark stay; everyone's reaches those too who were never looked for."""
    async with opened() as side:
        await keep(side.one, "bob's", BOB)
        before = await look(side.one, BOB)
        await side.other.invalidate(ADA[1], KEEP_MS)
        after = await look(side.one, BOB)
        assert (after.fence, after.moved_ago, await value(side.one, BOB)) == (before.fence, math.inf, "bob's")
        await side.other.invalidate(None, KEEP_MS)
        assert await value(side.one, BOB) is None
        assert (await look(side.one, ("", "never@example.org"))).moved_ago < 60


@pytest.mark.parametrize("name", [ADA[1], None])
async def test_how_long_ago_an_invalidation_was_is_told(opened: Open, name: str | None) -> None:
    """In seconds since whichever kind came last, until it is so long ago that it no longer matters."""
    async with opened() as side:
        await side.one.invalidate(None, KEEP_MS)
        side.pass_time(30)
        await side.one.invalidate(name, KEEP_MS)
        assert (await look(side.other)).moved_ago == pytest.approx(0, abs=14)
        side.pass_time(30)
        assert (await look(side.other)).moved_ago == pytest.approx(30, abs=14)
        side.pass_time(3600)
        assert (await look(side.other)).moved_ago == math.inf


async def test_a_value_grows_older_and_ends(opened: Open) -> None:
    """Its time counts from when its source was asked; its generations outlive it."""
    async with opened() as side:
        fence = (await look(side.one)).fence
        await keep(side.one, age=20.0)
        side.pass_time(20)
        found = await look(side.other)
        assert found.stored is not None
        assert found.stored.age == pytest.approx(40, abs=15)
        side.pass_time(21)
        found = await look(side.other)
        assert (found.fence, found.stored) == (fence, None)


async def test_generations_live_as_long_as_was_asked_for(opened: Open) -> None:
    """A look prolongs them, and so does a store: a value never outlives what it is judged by."""
    async with opened() as side:
        fence = (await look(side.one)).fence
        for _ in range(3):
            side.pass_time(KEEP_MS / 1000 - 20)
            assert (await look(side.one)).fence == fence
        await store_one(side.one, ADA, fence, Stored("long", "db", 600.0), 10 * KEEP_MS)
        side.pass_time(10 * KEEP_MS / 1000 - 20)
        found = await look(side.one)
        assert (found.fence, found.stored is None) == (fence, False)


async def test_with_no_time_left_the_generations_are_compared_all_the_same(opened: Open) -> None:
    """Others wait for what was loaded, though it is kept for nobody."""
    async with opened() as side:
        fence = (await look(side.one)).fence
        assert await keep(side.one, age=61.0, fence=fence) is True
        assert await value(side.one) is None
        await side.one.invalidate(ADA[1], KEEP_MS)
        assert await keep(side.one, age=61.0, fence=fence) is False


async def test_the_last_one_stored_is_found(opened: Open) -> None:
    """Under the same generations a later value takes the place of the former."""
    async with opened() as side:
        await keep(side.one, "first")
        await keep(side.other, "second")
        assert await value(side.one) == "second"


async def test_each_of_many_is_answered_in_its_place(opened: Open) -> None:
    """Known, unknown and invalidated ones together, in any number, and none at all."""
    users: list[Key] = [("", f"user{number}@example.org") for number in range(250)]
    async with opened() as side:
        looks = await side.one.look(users, KEEP_MS)
        fences = [found.fence for found in looks if found is not None]
        values = [
            Storing(key, fence, Stored(key[1], "db", 50.0), KEEP_MS)
            for key, fence in zip(users, fences, strict=True)
            if key != users[3]
        ]
        await side.other.invalidate(users[7][1], KEEP_MS)
        assert await side.one.store(values) == [each.key != users[7] for each in values]
        found = [None if each is None or each.stored is None else each.stored.value for each in
                 await side.other.look(users, KEEP_MS)]  # fmt: skip
        assert found == [None if key in (users[3], users[7]) else key[1] for key in users]
        assert (await side.one.look([], KEEP_MS), await side.one.store([])) == ([], [])


async def test_cut_off_it_says_that_nobody_knows(opened: Open) -> None:
    """A look and a store are answered with None in each place, an invalidation fails; later all is as it was."""
    async with opened() as side:
        await keep(side.one)
        fence = (await look(side.one)).fence
        side.cut_off()
        assert await side.one.look([ADA, BOB], KEEP_MS) == [None, None]
        assert await keep(side.one, "lost", fence=fence) is None
        for name in (ADA[1], None):
            with pytest.raises(SharedTierFailed):
                await side.one.invalidate(name, KEEP_MS)
        await side.reach_again()
        found = await look(side.one)
        assert found.fence == fence
        assert found.stored is not None
        assert found.stored.value == "old"


async def heard(side: Side, place: int, count: int) -> list[tuple[bytes | None, bytes | None]]:
    """Wait until an instance has heard of so many invalidations, and return them."""
    ear = side.ears[place]
    await eventually_async(lambda: len(ear.forgotten) >= count)
    return ear.forgotten


async def following(side: Side) -> None:
    """Wait until both have been proven that they hear whatever is announced from now on."""
    since = side.ears[0].now()
    for ear in side.ears:
        await eventually_async(lambda ear=ear: ear.proven_at >= since)  # type: ignore[misc]


@pytest.mark.parametrize("name", [ADA[1], None], ids=["invalidate", "clear"])
async def test_an_invalidation_is_heard_by_the_other_and_confirmed(opened: Open, name: str | None) -> None:
    """With the generation it has put in force; whoever began it is told nothing of it but who has confirmed."""
    async with opened() as side:
        await following(side)
        await look(side.one)
        reach = await side.other.invalidate(name, KEEP_MS)
        digest = None if name is None else digest_of(name)
        generation = None if name is None else (await look(side.one)).fence.name
        assert await heard(side, 0, 1) == [(digest, generation)]
        assert (reach.me, reach.silent) == (side.names[1], ())
        assert [instance for instance, _ in reach.confirmed] == [side.names[0]]
        await side.one.invalidate(BOB[1], KEEP_MS)
        assert [each for each, _ in await heard(side, 1, 1)] == [digest_of(BOB[1])]
        assert len(side.ears[0].forgotten) == 1
        assert [ear.misses for ear in side.ears] == [1, 1]


async def test_invalidations_are_heard_once_each_and_in_their_order(opened: Open) -> None:
    """However fast they follow one another."""
    async with opened() as side:
        await following(side)
        names = [f"user{number}" for number in range(30)]
        async with anyio.create_task_group() as tellers:
            for name in names[:10]:
                tellers.start_soon(side.other.invalidate, name, KEEP_MS)
        for name in names[10:]:
            await side.other.invalidate(name, KEEP_MS)
        told = [each for each, _ in await heard(side, 0, 30)]
        assert sorted(told[:10], key=str) == sorted(map(digest_of, names[:10]), key=str)
        assert told[10:] == [digest_of(name) for name in names[10:]]


@pytest.mark.parametrize("road", [flushed, failed_over, failed_over_to_an_older_state], ids=lambda road: road.__name__)
async def test_where_the_channel_has_lost_its_state_both_know_that_they_may_have_missed_something(
    opened: Open, road: Road
) -> None:
    """Neither trusts what it looked up before; and from then on each hears the other again."""
    async with opened() as side:
        await following(side)
        await road(side)
        await look(side.one)
        await look(side.other)
        for ear in side.ears:
            await eventually_async(lambda ear=ear: ear.misses >= 2)  # type: ignore[misc]
        await following(side)
        before = len(side.ears[0].forgotten)
        await side.other.invalidate(BOB[1], KEEP_MS)
        assert (await heard(side, 0, before + 1))[-1][0] == digest_of(BOB[1])


async def test_both_hear_that_a_generation_was_touched(opened: Open) -> None:
    """Made, deleted by hand, or renewed by one of them: a name's, and nobody else's."""
    async with opened() as side:
        await following(side)
        for touch in (look(side.one), lost(side), look(side.other), invalidated(side)):
            for ear in side.ears:
                ear.doubted.clear()
            await touch
            for ear in side.ears:
                await eventually_async(lambda ear=ear: ear.doubted == {digest_of(ADA[1])})  # type: ignore[misc]


async def test_a_connection_that_was_lost_catches_up(opened: Open) -> None:
    """What was announced before everybody was cut off is heard once, and what comes after it too."""
    async with opened() as side:
        await following(side)
        await side.other.invalidate(ADA[1], KEEP_MS)
        side.cut_off()
        await side.reach_again()
        await following(side)
        await side.other.invalidate(BOB[1], KEEP_MS)
        assert [each for each, _ in await heard(side, 0, 2)] == [digest_of(ADA[1]), digest_of(BOB[1])]
        assert [ear.misses for ear in side.ears] == [1, 1]
