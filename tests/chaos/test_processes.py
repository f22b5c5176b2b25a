"""Whether four real processes agree: about an invalidation, and about who asks the source."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.waiting import eventually, eventually_async

from . import company
from .bench import SOURCE_MS
from .changes import Changes, named
from .client import connected
from .faults import rely_on_the_list
from .fleet import PLACES, UNTRUSTED_TTL, Fleet, invalidate, together
from .forks import FORKED, Forks
from .history import History, Verdict
from .load import Load
from .logs import unhandled
from .tally import Tally


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Four processes over servers of their own."""
    with Fleet.start(redis_seconds=10.0) as running:
        asyncio.run(heard(running))
        yield running


async def heard(fleet: Fleet) -> None:
    """Wait until every process hears the channel: then each confirms an invalidation by any of them."""

    async def by_all() -> bool:
        await shown(fleet, 0)
        return len(await forgotten(fleet, 0, 0)) == PLACES

    await eventually_async(by_all)


async def shown(fleet: Fleet, user: int) -> list[str | None]:
    """Return which version each process shows a user."""
    replies = await asyncio.gather(*(each.ask("/me", asks=company.address(user)) for each in fleet.instances))
    return [None if reply.json()["context"] is None else reply.json()["context"]["version"] for reply in replies]


async def change(fleet: Fleet, user: int, version: int) -> None:
    """Put another version into the database."""
    async with await psycopg.AsyncConnection.connect(fleet.project.dsn, autocommit=True) as database:
        await company.change(database, user, version)


async def forgotten(fleet: Fleet, through: int, user: int | None) -> list[int]:
    """Invalidate a user, or everybody, through one process, and return the places of those that have confirmed it."""
    async with connected(fleet.instances[through].port) as connection:
        reply = await invalidate(connection, user, timeout=60.0)
    assert reply.status == 200
    confirmed = named(reply.json()["confirmed"])
    return [place for place, each in enumerate(fleet.instances) if each.pid in confirmed]


@pytest.mark.parametrize("through", range(PLACES))
def test_an_invalidation_through_one_process_is_seen_by_all(fleet: Fleet, through: int) -> None:
    """All serve the old from memory; all confirm, and serve the new at once."""

    async def story() -> None:
        user = 10 + through
        for version in (4, 7):
            old = await shown(fleet, user)
            assert len(set(old)) == 1
            await change(fleet, user, version)
            assert await shown(fleet, user) == old
            assert await forgotten(fleet, through, user) == list(range(PLACES))
            expected = None if version == 7 else company.title(version)
            assert await shown(fleet, user) == [expected] * PLACES

    asyncio.run(story())


def test_clear_through_one_process_is_seen_by_all(fleet: Fleet) -> None:
    """Everybody is forgotten everywhere."""

    async def story() -> None:
        users = (20, 21, 22)
        for user in users:
            await shown(fleet, user)
            await change(fleet, user, 1)
        assert await forgotten(fleet, 2, None) == list(range(PLACES))
        for user in users:
            assert await shown(fleet, user) == ["v1"] * PLACES

    asyncio.run(story())


def test_misses_at_the_same_moment_are_shared_by_the_fleet(fleet: Fleet) -> None:
    """A thousand misses on one user cost one call of the source, whichever process makes it."""
    fleet.front.reset()
    fleet.front.delay(SOURCE_MS)
    try:
        answers = asyncio.run(together(fleet, 30, 250))
        assert sum(sum(each["origins"].values()) for each in answers) == PLACES * 250
        assert fleet.front.counts().requests == 1
    finally:
        fleet.front.reset()


@pytest.mark.parametrize(("place", "closes"), [(0, True), (1, False)], ids=["asyncio", "uvloop"])
def test_a_forked_child_serves_nothing_that_was_invalidated(
    fleet: Fleet, tmp_path: Path, place: int, *, closes: bool
) -> None:
    """Its answers are judged under its own number, from its own beginning on; it ends by itself, its parent goes on."""
    history, tally, rng = History(UNTRUSTED_TTL), Tally(), random.Random(place)
    forks = Forks(fleet, history, tally, rng)
    changes = Changes(fleet, history, tally, rng, Load(fleet, history, tally, rng))

    async def story() -> None:
        async with await psycopg.AsyncConnection.connect(fleet.project.dsn, autocommit=True) as database:
            for user in range(company.USERS):
                await changes.change(database, user)
            # The child of another test, which has died, is waited for until its last beat is some seconds ago.
            await eventually_async(lambda: changes.invalidate(fleet.instances[0], None))
            for user in range(company.USERS):
                await shown(fleet, user)
            child = asyncio.create_task(forks.fork(fleet.instances[place], tmp_path, 3.0, closes=closes))
            for _ in range(3):
                await asyncio.sleep(0.3)
                for user in range(0, company.USERS, 4):
                    await changes.change(database, user)
                    await changes.invalidate(fleet.instances[3], user)
            await child

    rely_on_the_list(fleet)
    asyncio.run(story())
    assert tally.wrong == []
    assert tally.verdicts[Verdict.RIGHT] > 10
    assert (tally.faults[FORKED], tally.invalidations["200"] > 10) == (1, True)
    assert {name for name in tally.reports if "one may be missing" in name} == set()
    (pid,) = history._started
    assert pid not in [each.pid for each in fleet.instances]
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert unhandled(fleet.instances[place].log.read_text()) == []


def test_an_exception_in_a_process_is_found_in_its_log(fleet: Fleet) -> None:
    """What the run would call unhandled is told by the process that it happened in, and by no other."""
    assert [unhandled(each.log.read_text()) for each in fleet.instances] == [[]] * PLACES
    # Without its parameters this page raises.
    assert asyncio.run(fleet.instances[1].ask("/private/misses")).status == 500
    found = eventually(lambda: unhandled(fleet.instances[1].log.read_text()))
    assert len(found) == 1
    assert "Exception in ASGI application" in found[0]
    assert unhandled(fleet.instances[0].log.read_text()) == []
