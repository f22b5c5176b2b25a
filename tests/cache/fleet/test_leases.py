"""Whether a user who misses everywhere is loaded once, and nobody waits for an instance that does not load."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import anyio
import pytest
import redis

from ctxmiddleware.cache.base import Fence
from ctxmiddleware.cache.looking import MOST_AGAINS
from ctxmiddleware.cache.names import digest_of
from ctxmiddleware.cache.policy import CachePolicy
from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.cache.redis.lease import Leases
from ctxmiddleware.cache.redis.lua.leases import CLAIM, PROLONG
from ctxmiddleware.cache.redis.lua.script import Script
from ctxmiddleware.cache.redis.options import RedisOptions
from ctxmiddleware.cache.redis.order import Errand
from ctxmiddleware.cache.redis.tier import RedisTier
from ctxmiddleware.cache.shared import AGAIN, Claim, Claiming, Look
from ctxmiddleware.cache.tiered import ALONE_AFTER
from ctxmiddleware.errors import SourceUnavailable
from examples.servers import TcpProxy
from tests.backends import asyncio_only
from tests.cache.rig import ADA, PATIENT, STEADY, Database, Instance, instance, look_one, redis_tier
from tests.waiting import eventually_async

pytestmark = [pytest.mark.anyio, asyncio_only]

# By itself no lease of PATIENT ends while a test runs: a load that goes on was woken.
WAITING = replace(STEADY, lease_wait=25.0)
CROWD = [("", f"user{number}") for number in range(250)]


@pytest.fixture
def server(redis_url: str) -> Any:
    """A client of the server, for what is done by hand."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@dataclass
class Fleet:
    """Instances that each have a database of their own, so that it is seen who loads; the last one by a proxy."""

    instances: list[Instance]
    way: TcpProxy

    @property
    def loads(self) -> int:
        """How many users were loaded in all."""
        return sum(len(each.database.calls) for each in self.instances)

    async def all_ask(self, *keys: tuple[str, str], callers: int = 1) -> list[str | None]:
        """Let callers of every instance ask for users at once, and return what they got."""
        answers: list[str | None] = []

        async def ask(one: Instance, key: tuple[str, str]) -> None:
            answers.append(await one.value(key))

        async with anyio.create_task_group() as tasks:
            for one in self.instances:
                for key in keys:
                    for _ in range(callers):
                        tasks.start_soon(ask, one, key)
        return answers


@asynccontextmanager
async def _fleet(url: str, *, policy: CachePolicy = WAITING, options: RedisOptions = PATIENT) -> AsyncIterator[Fleet]:
    port = redis.Redis.from_url(url).connection_pool.connection_kwargs["port"]
    with TcpProxy.start("127.0.0.1", port) as way:
        async with AsyncExitStack() as stack:
            urls = [url, url, f"redis://127.0.0.1:{way.port}/0"]
            yield Fleet(
                [
                    await stack.enter_async_context(
                        instance(Slow(batch_size=100), url=each, policy=policy, options=options)
                    )
                    for each in urls
                ],
                way,
            )


class Slow(Database):
    """A database whose answers take as long as a real one's."""

    async def load(self, asks: Any) -> Any:
        """Answer after a while."""
        answers = await super().load(asks)
        await anyio.sleep(0.03)
        return answers


async def test_all_who_miss_at_once_are_served_by_one_load(redis_url: str) -> None:
    """Whichever instance is first loads; the others take what it stored."""
    async with _fleet(redis_url) as fleet:
        answers = await fleet.all_ask(ADA, callers=50)
        assert answers == [f"{ADA[1]} 1"] * 150
        assert fleet.loads == 1


async def test_a_crowd_is_loaded_once_each(redis_url: str) -> None:
    """However the misses of many users fall to the instances."""
    async with _fleet(redis_url) as fleet:
        answers = await fleet.all_ask(*CROWD)
        assert sorted(answers, key=str) == sorted([f"{name} 1" for _, name in CROWD] * 3)
        assert fleet.loads == len(CROWD)


async def test_those_who_wait_are_woken_and_do_not_look_meanwhile(redis_url: str, server: Any) -> None:
    """While another instance loads nothing is asked of Redis, and its answer is there once it has landed."""
    async with _fleet(redis_url) as fleet:
        first, second, _ = fleet.instances
        first.database.hold()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.get)
            await first.database.started(1)
            tasks.start_soon(second.get)
            await eventually_async(lambda: second.counters.get("load", "leased") == 1)
            looks = second.counters.get("miss", "redis")
            await anyio.sleep(0.3)
            assert second.counters.get("miss", "redis") == looks
            first.database.release()
        assert second.database.calls == []
        assert second.counters.get("hit", "redis") == 1


async def test_a_long_load_keeps_its_lease(redis_url: str, server: Any) -> None:
    """It is prolonged while the load goes on, and no other instance loads beside it."""
    async with _fleet(redis_url, options=replace(PATIENT, lease=3.0)) as fleet:
        first, second, _ = fleet.instances
        assert first.redis is not None
        lease = KeySpace("test", first.redis.codec.shape).of(ADA).lease
        least_ms = 3000

        def is_prolonged() -> bool:
            nonlocal least_ms
            left_ms = int(server.pttl(lease))
            before, least_ms = least_ms, min(least_ms, left_ms)
            return left_ms > before

        first.database.hold()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.get)
            await first.database.started(1)
            tasks.start_soon(second.get)
            await eventually_async(is_prolonged)
            first.database.release()
        assert second.database.calls == []


async def test_a_dead_owner_is_replaced(redis_url: str) -> None:
    """One that is cut off, or killed, holds nobody up for longer than its lease lasts."""
    async with _fleet(redis_url, options=replace(PATIENT, timeout=0.5, lease=0.5)) as fleet:
        first, _, last = fleet.instances
        last.database.hold()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(last.get)
            await last.database.started(1)
            fleet.way.black_hole()
            assert await first.value() == f"{ADA[1]} 1"
            last.database.release()
        assert fleet.loads == 2


async def test_a_load_that_fails_lets_the_others_try_at_once(redis_url: str) -> None:
    """Its lease is given back, and whoever waits is woken."""
    async with _fleet(redis_url) as fleet:
        first, second, _ = fleet.instances
        first.database.error = SourceUnavailable("down")
        first.database.hold()
        async with anyio.create_task_group() as tasks:

            async def fails() -> None:
                with pytest.raises(SourceUnavailable):
                    await first.get()

            tasks.start_soon(fails)
            await first.database.started(1)
            tasks.start_soon(second.get)
            await eventually_async(lambda: second.counters.get("load", "leased") == 1)
            first.database.release()
            await second.database.started(1)


async def test_whoever_has_waited_long_enough_just_now_is_not_lost(redis_url: str) -> None:
    """A load whose time to wait for others ends while it is decided who loads is made, whenever that is."""
    for lease_wait in (0.001 * number for number in range(1, 40, 2)):
        policy = replace(STEADY, lease_wait=lease_wait)
        async with instance(Database(batch_size=100), url=redis_url, policy=policy) as one:
            answers: list[str | None] = []

            async def ask(key: tuple[str, str], one: Instance = one, answers: list[str | None] = answers) -> None:
                answers.append(await one.value(key))

            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    for _, name in CROWD:
                        tasks.start_soon(ask, (f"waits {lease_wait:g}", name))
            assert len(answers) == len(CROWD)


async def test_nobody_waits_longer_than_lease_wait(redis_url: str) -> None:
    """For however long another instance says that it loads, sooner or later it is loaded here."""
    async with _fleet(redis_url, policy=replace(STEADY, lease_wait=0.3)) as fleet:
        first, second, _ = fleet.instances
        first.database.hold()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.get)
            await first.database.started(1)
            assert await second.value() == f"{ADA[1]} 1"
            first.database.release()


@pytest.mark.parametrize("name", [ADA[1], None], ids=["invalidate", "clear"])
async def test_the_lease_of_an_overtaken_load_holds_nobody_up(redis_url: str, name: str | None) -> None:
    """After an invalidation the next one loads anew, while the old load is still under way elsewhere."""
    async with _fleet(redis_url) as fleet:
        first, second, _ = fleet.instances
        first.database.hold()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.get)
            await first.database.started(1)
            await second.cache.invalidate(name)
            second.database.rows[ADA[1]] = first.database.rows[ADA[1]] = "new"
            assert await second.value() == "new"
            first.database.release()
        assert await first.value() == "new"


async def test_a_load_that_is_not_wanted_any_more_gives_its_lease_back(redis_url: str, server: Any) -> None:
    """Overtaken while it waited for its turn it is not made, and the next one, under the same generation, is."""
    policy = replace(STEADY, max_loads=1, lease_wait=600.0)
    async with _fleet(redis_url, policy=policy, options=replace(PATIENT, lease=600.0)) as fleet:
        first = fleet.instances[0]
        first.database.hold()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.value, CROWD[0])
            await first.database.started(1)
            tasks.start_soon(first.value, ADA)
            await eventually_async(lambda: len(list(server.scan_iter("ctx:*:l:*"))) == 2)
            first.cache.hearing.forget(digest_of(ADA[1]), None, b"")
            first.database.release()
            await first.database.started(2)
        assert first.database.calls == [CROWD[0][1], ADA[1]]


async def test_leases_end_with_their_loads(redis_url: str, server: Any) -> None:
    """Nothing is left in Redis or in the process, and a cancelled caller leaves nothing either."""
    async with _fleet(redis_url) as fleet:
        await fleet.all_ask(*CROWD[:20])
        assert list(server.scan_iter("ctx:*:l:*")) == []
        for each in fleet.instances:
            assert each.redis is not None
            assert len(each.redis._leases) == 0
            assert len(each.redis._fleet.landings) == 0


async def test_where_redis_cannot_be_asked_everybody_loads(redis_url: str) -> None:
    """A lease is no condition: without an answer an instance goes on alone."""
    async with _fleet(redis_url) as fleet:
        last = fleet.instances[2]
        fleet.way.refuse()
        assert await last.value() == f"{ADA[1]} 1"


async def test_what_is_not_a_lease_at_its_key_is_replaced(redis_url: str, server: Any) -> None:
    """Whatever somebody has put there."""
    async with _fleet(redis_url) as fleet:
        tier = redis_tier(redis_url)
        server.set(KeySpace("test", tier.codec.shape).of(ADA).lease, "garbage")
        assert await fleet.instances[0].value() == f"{ADA[1]} 1"


async def test_a_value_that_has_landed_since_the_look_is_looked_up_and_not_loaded_again(redis_url: str) -> None:
    """Looking and claiming are two trips: in between another instance may have stored, and given its lease back."""
    away = Database()
    async with instance(away, url=redis_url) as other:
        tier = redis_tier(redis_url)
        async with tier.opened:
            hasty = Hasty(tier, other.get)
            async with instance(shared=hasty) as one:
                found = await one.get()
        assert (found.origin, one.database.calls, away.calls) == ("redis", [], [ADA[1]])


@pytest.mark.parametrize("name", [ADA[1], None], ids=["invalidate", "clear"])
async def test_a_claim_under_generations_that_have_moved_on_ends_no_other_s_lease(
    redis_url: str, server: Any, name: str | None
) -> None:
    """It was looked up before an invalidation, and claims after another instance has begun to load anew."""
    one, two = [redis_tier(redis_url) for _ in range(2)]
    async with one.opened, two.opened:
        before = await look_one(one, ADA, 60_000)
        await two.invalidate(name, 60_000)
        after = await look_one(two, ADA, 60_000)
        assert before is not None
        assert after is not None
        (lease,) = await two.claim([_claiming(after)])
        assert await one.claim([_claiming(before)]) == [AGAIN]
        assert server.hget(KeySpace("test", one.codec.shape).of(ADA).lease, "o") == lease.lease
        (waiting,) = await one.claim([_claiming(after)])
        assert 0 < waiting.wait <= PATIENT.lease
        assert len(one._leases) == 0


async def test_what_is_there_and_of_no_use_is_no_reason_to_look_again(redis_url: str, server: Any) -> None:
    """A value that cannot be read, or without an end, was there when it was looked for."""
    tier = redis_tier(redis_url)
    key = KeySpace("test", tier.codec.shape).of(ADA)
    async with tier.opened:
        for ends in (None, 90_000):
            server.set(key.value, "garbage", px=ends)
            look = await look_one(tier, ADA, 60_000)
            assert look is not None
            assert look.stored is None
            (claim,) = await tier.claim([_claiming(look)])
            assert claim.lease
            await tier.release([claim.lease])


async def test_a_claim_that_is_sent_again_is_its_own(redis_url: str, server: Any) -> None:
    """The driver sends again what it has had no answer to: the load must not wait for itself."""
    fence = (b"everyone", b"name")
    server.mset({"{u}e": fence[0], "{u}n": fence[1]})
    keys, words = ("{u}e", "{u}n", "{u}v", "{u}l"), (b"token", 60_000, *fence, -2)
    claims = [server.eval(CLAIM.text, 4, *keys, *words, owner, b"me") for owner in (b"one", b"one", b"two")]
    assert [claims[0][1], claims[1][1]] == [[0], [0]]
    assert 0 < claims[2][1][0] <= 60_000


async def test_a_lease_of_an_instance_that_was_set_up_otherwise_is_one(redis_url: str, server: Any) -> None:
    """It is waited for, no longer than one of our own, and whoever waits for it already is not forgotten."""
    tier = redis_tier(redis_url)
    key = KeySpace("test", tier.codec.shape).of(ADA)
    async with tier.opened:
        look = await look_one(tier, ADA, 60_000)
        assert look is not None
        held = {"o": "somebody", "e": look.fence.everyone, "n": look.fence.name, "w:another": ""}
        server.hset(key.lease, mapping=held)
        server.pexpire(key.lease, 86_400_000)
        (claim,) = await tier.claim([_claiming(look)])
        assert (claim.lease, claim.wait) == (b"", PATIENT.lease)
        assert 0 < server.pttl(key.lease) <= PATIENT.lease * 1000
        assert {b"w:another", f"w:{tier.instance}".encode()} <= set(server.hkeys(key.lease))
        # Not prolonged here, it ends like any other.
        assert len(tier._leases) == 0
        server.delete(key.lease)
        server.hset(key.lease, mapping=held)
        (claim,) = await tier.claim([_claiming(look)])
        assert claim.lease


async def test_a_load_looks_again_a_few_times_and_is_made_then(redis_url: str) -> None:
    """However often its generations are gone before it claims."""
    tier = redis_tier(redis_url)
    async with tier.opened:
        claims = 0

        async def lose() -> None:
            nonlocal claims
            claims += 1
            with redis.Redis.from_url(redis_url) as client:
                client.delete(KeySpace("test", tier.codec.shape).of(ADA).generation)

        async with instance(shared=Hasty(tier, lose)) as one:
            assert await one.value() == f"{ADA[1]} 1"
        assert claims == ALONE_AFTER * (MOST_AGAINS + 1)


async def test_leases_are_kept_however_often_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """An error in between is logged, and ends neither the keeping nor what it runs beside."""
    asked: list[object] = []

    async def ask(script: Script[Any], errands: Sequence[Errand], common: tuple[int, ...]) -> Sequence[Any]:
        asked.append(script)
        if len(asked) == 2:
            raise RuntimeError("odd")
        return [0] * len(errands)

    keys = KeySpace("test", b"")
    leases = Leases(ask, keys, me=lambda: "me", wake=lambda _: None, token=lambda: b"token", lasts=0.03)
    assert (await leases.claim([_claiming(Look(Fence(b"e", b"n"), None))]))[0].lease == b"token"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leases.keep)
        await eventually_async(lambda: len(asked) >= 4)
        tasks.cancel_scope.cancel()
    assert asked[:4] == [CLAIM, PROLONG, PROLONG, PROLONG]
    assert [record.message for record in caplog.records] == ["leases could not be prolonged: RuntimeError: odd"]


def _claiming(look: Look[str]) -> Claiming:
    return Claiming(ADA, look.fence, look.left_ms, lambda: False)


class Hasty:
    """A real tier beside which something happens before each claim."""

    def __init__(self, tier: RedisTier[str], first: Callable[[], Awaitable[object]]) -> None:
        self.look, self.store, self.listen, self._tier = tier.look, tier.store, tier.listen, tier
        self.invalidate, self.release, self.landings = tier.invalidate, tier.release, tier.landings
        self.remember, self.hottest, self.recall = tier.remember, tier.hottest, tier.recall
        self.hold, self.let_go, self.mark, self.renew = tier.hold, tier.let_go, tier.mark, tier.renew
        self._first = first

    @property
    def is_listed(self) -> bool:
        """Whether the reports of other instances count this one in."""
        return self._tier.is_listed

    async def claim(self, wanted: Sequence[Claiming]) -> list[Claim]:
        """Claim, after that."""
        await self._first()
        return await self._tier.claim(wanted)
