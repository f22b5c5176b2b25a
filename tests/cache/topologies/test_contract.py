"""Whether the shared tier does what it promises over Redis in every shape and version it is run in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial

import anyio
import pytest

from ctxmiddleware.cache.base import Key, Stored
from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.cache.redis.tier import RedisTier
from ctxmiddleware.cache.shared import Look, Storing
from ctxmiddleware.stats import Counters
from examples.servers.programs import ALL, VALKEY_9, another
from tests.backends import asyncio_only
from tests.cache.rig import ADA, BOB, PATIENT, Database, instance, look_one, redis_tier, store_one
from tests.matrix import in_full
from tests.waiting import eventually_async

from . import shapes
from .shapes import Shape, Start
from .traffic import is_heard

pytestmark = [pytest.mark.anyio, asyncio_only]
KEEP_MS = 60_000
USERS: list[Key] = [("", f"user{number}@example.org") for number in range(300)]

SHAPES = {
    "{}": shapes.alone,
    "{} as a user": shapes.by_user,
    "{} under Sentinel": shapes.by_sentinels,
    "{} as a cluster": shapes.by_cluster,
    "{} as a cluster, as a user": shapes.by_cluster_and_user,
}
STARTS: dict[str, Start] = {
    **{shape.format(name): partial(start, program) for name, program in shapes.programs().items()
       for shape, start in SHAPES.items()},
    "unix socket": shapes.by_socket,
    "TLS": shapes.by_tls,
}  # fmt: skip
BY_HAND = another()
if BY_HAND is not None:
    # None out of a package was built with TLS.
    STARTS[f"{BY_HAND.name} under Sentinel, TLS"] = partial(shapes.by_sentinels_and_tls, BY_HAND)
    STARTS[f"{BY_HAND.name} as a cluster, TLS"] = partial(shapes.by_cluster_and_tls, BY_HAND)


# Before each push: the newest in every shape, the oldest by itself, and what is between an instance and a server.
OLDEST = [program.name for program in ALL if program.is_to_be_had][-1]
PUSH = {*(shape.format(VALKEY_9.name) for shape in SHAPES), OLDEST, "unix socket", "TLS"}


@pytest.fixture(scope="module", params=[name if name in PUSH else in_full(name) for name in STARTS])
def running(request: pytest.FixtureRequest) -> Iterator[Shape]:
    """Redis in one shape."""
    with STARTS[request.param]() as shape:
        yield shape


@pytest.fixture
async def tiers(running: Shape, request: pytest.FixtureRequest) -> AsyncIterator[tuple[RedisTier[str], RedisTier[str]]]:
    """Two instances with a namespace that nobody has used before."""
    counters = Counters()
    one, other = (
        redis_tier(running.target, counters=counters, options=PATIENT, namespace=request.node.name) for _ in range(2)
    )
    async with one.opened, other.opened:
        yield one, other
    assert (counters.get("fault", "redis"), counters.get("busy", "redis")) == (0, 0)


def _value(look: Look[str] | None) -> str | None:
    return None if look is None or look.stored is None else look.stored.value


async def _look(tier: RedisTier[str], key: Key = ADA) -> Look[str]:
    found = await look_one(tier, key, KEEP_MS)
    assert found is not None
    return found


async def _keep(tier: RedisTier[str], key: Key = ADA, text: str = "old") -> None:
    assert await store_one(tier, key, (await _look(tier, key)).fence, Stored(text, "db", 50.0), KEEP_MS)


async def test_what_one_stores_the_other_finds(tiers: tuple[RedisTier[str], RedisTier[str]]) -> None:
    """Under generations that both see alike."""
    one, other = tiers
    await _keep(one)
    found = await _look(other)
    assert (found.fence, _value(found)) == ((await _look(one)).fence, "old")


@pytest.mark.parametrize("name", [ADA[1], None], ids=["invalidate", "clear"])
async def test_what_was_invalidated_is_neither_found_nor_stored_again(
    tiers: tuple[RedisTier[str], RedisTier[str]], name: str | None
) -> None:
    """Compare and set against generations that are gone fails, and under the new ones it is as before."""
    one, other = tiers
    await _keep(one)
    before = (await _look(one)).fence
    await other.invalidate(name, KEEP_MS)
    after = await _look(one)
    assert (_value(after), after.fence != before) == (None, True)
    assert after.moved_ago < 60
    assert await store_one(one, ADA, before, Stored("old", "db", 50.0), KEEP_MS) is False
    assert _value(await _look(other)) is None
    await _keep(one, text="new")
    assert _value(await _look(other)) == "new"


async def test_one_user_s_invalidation_is_nobody_else_s(tiers: tuple[RedisTier[str], RedisTier[str]]) -> None:
    """Another's generations and value stay."""
    one, other = tiers
    await _keep(one, BOB)
    before = (await _look(one, BOB)).fence
    await other.invalidate(ADA[1], KEEP_MS)
    found = await _look(one, BOB)
    assert (found.fence, _value(found)) == (before, "old")


async def test_each_of_many_is_answered_in_its_place(tiers: tuple[RedisTier[str], RedisTier[str]]) -> None:
    """Three hundred users at once, some of them unknown and one invalidated, and everyone after a clear."""
    one, other = tiers
    fences = [found.fence for found in await one.look(USERS, KEEP_MS) if found is not None]
    values = [
        Storing(key, fence, Stored(key[1], "db", 50.0), KEEP_MS) for key, fence in zip(USERS, fences, strict=True)
    ]
    await other.invalidate(USERS[7][1], KEEP_MS)
    assert await one.store(values[3:]) == [key != USERS[7] for key in USERS[3:]]
    found = [_value(each) for each in await other.look(USERS, KEEP_MS)]
    assert found == [None if key in (*USERS[:3], USERS[7]) else key[1] for key in USERS]
    await one.invalidate(None, KEEP_MS)
    assert [_value(each) for each in await other.look(USERS, KEEP_MS)] == [None] * len(USERS)


@pytest.mark.parametrize("name", [ADA[1], None], ids=["own", "everyone's"])
async def test_a_generation_that_was_lost_does_not_come_back(
    tiers: tuple[RedisTier[str], RedisTier[str]], running: Shape, request: pytest.FixtureRequest, name: str | None
) -> None:
    """Deleted by hand, evicted or expired: what was stored under it is found by nobody."""
    one, other = tiers
    await _keep(one)
    before = (await _look(one)).fence
    keys = KeySpace(request.node.name, one.codec.shape).of(ADA)
    key = keys.everyone if name is None else keys.generation
    assert running.owner(key).delete(key) == 1
    assert await store_one(one, ADA, before, Stored("old", "db", 50.0), KEEP_MS) is False
    assert _value(await _look(other)) is None


async def test_connections_that_were_lost_are_made_again(
    tiers: tuple[RedisTier[str], RedisTier[str]], running: Shape
) -> None:
    """The server closes them all, idle as they are, and nobody notices."""
    one, other = tiers
    await _keep(one)
    for client in (running.owner(key) for key in (ADA[1], BOB[1], "others")):
        # Sentinels that lost theirs would take the master for down.
        for each in (each for each in client.client_list() if not each["name"].startswith("sentinel")):
            client.client_kill_filter(_id=each["id"], skipme=True)
    assert _value(await _look(one)) == "old"
    assert _value((await other.look([ADA, BOB], KEEP_MS))[0]) == "old"


async def test_two_instances_agree(running: Shape, request: pytest.FixtureRequest) -> None:
    """One load serves both, and each hears what the other invalidates, a user or everybody."""
    database, key = Database(), ("", request.node.name)
    async with (
        instance(database, url=running.target) as one,
        instance(database, url=running.target) as other,
    ):
        for each in (one, other):
            await eventually_async(partial(is_heard, each))
        database.hold()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.get, key)
            await database.started(1)
            tasks.start_soon(other.get, key)
            await eventually_async(lambda: other.counters.get("load", "leased") == 1)
            database.release()
        assert len(database.calls) == 1
        for name in (key[1], None):
            database.rows[key[1]] = f"after {name}"
            _, reach = await one.cache.invalidate(name)
            assert (len(reach.confirmed), reach.silent) == (1, ())
            assert other.cache.peek(key) is None
            assert await other.value(key) == await one.value(key) == f"after {name}"
        assert len(database.calls) == 3
