"""Whether instances hear of each other's invalidations at once, and notice whatever they did not hear."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio
import pytest
import redis
import redis.asyncio

from ctxmiddleware.cache.base import Key
from ctxmiddleware.cache.expecting import EXPECTED_SECONDS
from ctxmiddleware.cache.names import digest_of
from ctxmiddleware.cache.policy import CachePolicy
from ctxmiddleware.cache.redis.channel import Channel, Follower
from ctxmiddleware.cache.redis.ear import Ear, EarOptions
from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.cache.redis.lua.channel import LISTED_MS
from ctxmiddleware.cache.redis.lua.invalidation import ANNOUNCE
from ctxmiddleware.cache.redis.options import RedisOptions
from ctxmiddleware.cache.redis.register import entry_of
from ctxmiddleware.cache.redis.servers.driver import Connection, connection_for
from ctxmiddleware.cache.redis.tier import RedisTier
from ctxmiddleware.cache.shared import Look
from ctxmiddleware.stats import Counters
from ctxmiddleware.testing import FakeClock
from examples.servers import TcpProxy
from tests.backends import asyncio_only
from tests.cache.contract.sides import Recorder
from tests.cache.rig import ADA, BOB, PATIENT, STEADY, Database, Instance, instance, redis_tier
from tests.waiting import eventually_async

pytestmark = [pytest.mark.anyio, asyncio_only]

KEYS = KeySpace("test", b"")
CHANNEL = KEYS.channel()
# Beats prove four times in that time that nothing was missed: the tests wait for some of them.
POLICY = replace(STEADY, untrusted_ttl=0.4)
LASTS = POLICY.untrusted_ttl


@pytest.fixture
def server(redis_url: str) -> Any:
    """A client of the server, for what is done by hand."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@dataclass
class Pair:
    """Two instances; the second one reaches Redis by a proxy of its own."""

    one: Instance
    two: Instance
    way: TcpProxy
    database: Database
    clock: FakeClock
    url: str

    async def invalidated_elsewhere(self, name: str) -> None:
        """Let another process invalidate a name, without a wait for those that are to confirm it."""
        tier = redis_tier(self.url, options=replace(PATIENT, confirm_timeout=0.001))
        async with tier.opened:
            await tier.invalidate(name, 60_000)

    async def both_know(self, *keys: tuple[str, str]) -> None:
        """Let both have users in memory, and hear the channel."""
        for each in (self.one, self.two):
            await eventually_async(partial(is_heard, each))
            for key in keys or (ADA,):
                await each.get(key)
        # News that their loads have made arrive before those of what comes after them.
        await self.one.cache.invalidate("somebody else")
        for each in (self.one, self.two):
            for key in keys or (ADA,):
                await each.get(key)


def is_heard(one: Instance) -> bool:
    """Return whether an instance hears the channel, and its memory is trusted for that."""
    assert one.redis is not None
    return one.redis.is_heard() and one.cache.trust.until > one.clock()


def has_missed(one: Instance) -> bool:
    """Return whether an instance knows that news were missed, once."""
    return one.counters.get("missed", "channel") == 1


def is_gone(one: Instance) -> bool:
    """Return whether an instance does not answer for Ada by memory alone."""
    return in_memory(one) is None


def name_of(one: Instance) -> str:
    """Return what an instance is called in the fleet."""
    assert one.redis is not None
    return one.redis.instance


def listed(server: Any) -> int:
    """Return how many instances are in the list."""
    return int(server.zcount(CHANNEL.listeners, "(0", "+inf"))


def in_memory(one: Instance, key: tuple[str, str] = ADA) -> str | None:
    """Return what an instance answers by memory alone."""
    entry = one.cache.peek(key)
    return None if entry is None else entry.value


@asynccontextmanager
async def _pair(
    url: str, *, policy: CachePolicy = POLICY, options: RedisOptions = PATIENT, other: RedisOptions = PATIENT
) -> AsyncIterator[Pair]:
    """Open two instances, each with its options."""
    database, clock = Database(), FakeClock()
    port = redis.Redis.from_url(url).connection_pool.connection_kwargs["port"]
    with TcpProxy.start("127.0.0.1", port) as way:
        async with AsyncExitStack() as stack:
            one, two = [
                await stack.enter_async_context(instance(database, url=where, clock=clock, policy=policy, options=each))
                for where, each in ((url, options), (f"redis://127.0.0.1:{way.port}/0", other))
            ]
            yield Pair(one, two, way, database, clock, url)


@pytest.mark.every_loop
@pytest.mark.parametrize("name", [ADA[1], None], ids=["invalidate", "clear"])
async def test_once_it_returns_every_instance_has_forgotten(redis_url: str, name: str | None) -> None:
    """No time passes: who has confirmed has forgotten, and nobody is silent."""
    async with _pair(redis_url) as pair:
        await pair.both_know(ADA, BOB)
        pair.database.rows = {ADA[1]: "new", BOB[1]: "new"}
        dropped, reach = await pair.one.cache.invalidate(name)
        assert dropped == (1 if name else 2)
        assert [instance for instance, _ in reach.confirmed] == [name_of(pair.two)]
        assert reach.silent == ()
        assert in_memory(pair.two) is None
        assert (in_memory(pair.two, BOB) is None) is (name is None)
        assert await pair.two.value() == "new"
        assert pair.two.counters.get("missed", "channel") == 0


async def test_while_the_channel_is_heard_memory_answers_without_asking_redis(redis_url: str) -> None:
    """Trust goes on for as long as beats prove that nothing was missed, far beyond what one look is good for."""
    async with _pair(redis_url) as pair:
        await pair.both_know()
        asked = pair.two.counters.get("hit", "redis")
        for _ in range(4):
            pair.clock.advance(0.75 * LASTS)
            await eventually_async(lambda: pair.two.cache.trust.until > pair.clock() + 0.5 * LASTS)
            assert in_memory(pair.two) is not None
        assert pair.two.counters.get("hit", "redis") == asked
        assert len(pair.database.calls) == 1


async def test_an_instance_that_stops_hearing_asks_redis_once_its_trust_has_ended(redis_url: str) -> None:
    """What it has not heard for `untrusted_ttl` it does not answer by memory, though nothing has told it anything."""
    async with _pair(redis_url) as pair:
        await pair.both_know()
        pair.way.black_hole()
        pair.database.rows[ADA[1]] = "new"
        # How long it waits for those that do not confirm is not what the other one has to keep to.
        hasty = replace(PATIENT, confirm_timeout=0.3)
        async with instance(url=redis_url, clock=pair.clock, policy=POLICY, options=hasty) as third:
            await eventually_async(lambda: is_heard(third))
            _, reach = await third.cache.invalidate(ADA[1])
        assert (name_of(pair.two), POLICY.longest_untold) in reach.silent
        assert name_of(pair.two) not in dict(reach.confirmed)
        assert in_memory(pair.two) == f"{ADA[1]} 1"
        pair.clock.advance(LASTS)
        assert in_memory(pair.two) is None
        pair.way.pass_through()


@pytest.mark.every_loop
async def test_after_a_short_break_it_hears_what_it_missed(redis_url: str) -> None:
    """The stream keeps the recent past: whom it holds and nobody invalidated stays trusted."""
    async with _pair(redis_url) as pair:
        await pair.both_know(ADA, BOB)
        pair.way.refuse()
        await eventually_async(lambda: not is_heard(pair.two))
        pair.database.rows[ADA[1]] = "new"
        await pair.invalidated_elsewhere(ADA[1])
        assert in_memory(pair.two) == f"{ADA[1]} 1"
        pair.way.pass_through()
        await eventually_async(lambda: in_memory(pair.two) is None)
        assert in_memory(pair.two, BOB) == f"{BOB[1]} 1"
        assert pair.two.counters.get("missed", "channel") == 0


async def test_a_break_that_is_longer_than_the_stream_ends_all_trust(redis_url: str, server: Any) -> None:
    """News that are gone before they were read are noticed by their numbers."""
    async with _pair(redis_url) as pair:
        await pair.both_know(ADA, BOB)
        pair.way.refuse()
        await eventually_async(lambda: not is_heard(pair.two))
        for name in (ADA[1], "somebody else"):
            await pair.invalidated_elsewhere(name)
        [*_, first, _] = server.xrange(CHANNEL.stream)
        server.xdel(CHANNEL.stream, first[0])
        pair.way.pass_through()
        await eventually_async(partial(has_missed, pair.two))
        assert in_memory(pair.two) is in_memory(pair.two, BOB) is None
        assert (await pair.two.get(BOB)).origin == "memory" or len(pair.database.calls) == 2


async def test_an_announcement_that_was_lost_is_noticed_by_the_next_beat(redis_url: str, server: Any) -> None:
    """Counted and never put into the stream, or taken out of it: nothing is trusted that was looked up before."""
    async with _pair(redis_url) as pair:
        await pair.both_know()
        server.hincrby(CHANNEL.state, "n", 1)
        for each in (pair.one, pair.two):
            await eventually_async(partial(has_missed, each))
            assert in_memory(each) is None
            await eventually_async(partial(is_heard, each))
            # Confirmed by Redis and not loaded again: nobody was invalidated.
            assert await each.value() == f"{ADA[1]} 1"
        assert len(pair.database.calls) == 1


async def test_what_somebody_else_writes_into_the_stream_ends_trust(redis_url: str, server: Any) -> None:
    """It is no announcement, so nobody knows what is missing."""
    async with _pair(redis_url) as pair:
        await pair.both_know()
        server.xadd(CHANNEL.stream, {"x": "y"})
        await eventually_async(partial(has_missed, pair.two))
        assert in_memory(pair.two) is None
        await eventually_async(lambda: is_heard(pair.two))
        pair.database.rows[ADA[1]] = "new"
        await pair.one.cache.invalidate(ADA[1])
        assert await pair.two.value() == "new"


async def test_flushall_is_noticed_at_once(redis_url: str, server: Any) -> None:
    """Whoever empties Redis means that everybody is asked for again; no beat has to pass."""
    async with _pair(redis_url) as pair:
        await pair.both_know()
        pair.database.rows[ADA[1]] = "new"
        server.flushall()
        await eventually_async(lambda: in_memory(pair.two) is None)
        assert await pair.two.value() == "new"
        await eventually_async(lambda: is_heard(pair.two))
        assert await pair.two.value() == in_memory(pair.two) == "new"


async def test_a_generation_deleted_by_hand_is_noticed_at_once(redis_url: str, server: Any) -> None:
    """That user is asked for again by every instance, and nobody else is."""
    async with _pair(redis_url) as pair:
        await pair.both_know(ADA, BOB)
        pair.database.rows = {ADA[1]: "new", BOB[1]: "new"}
        server.delete(KEYS.of(ADA).generation)
        for each in (pair.one, pair.two):
            await eventually_async(partial(is_gone, each))
            assert await each.value() == "new"
            assert in_memory(each, BOB) == f"{BOB[1]} 1"


async def test_a_generation_changed_without_an_announcement_is_noticed_at_once(redis_url: str, server: Any) -> None:
    """As where whoever changed it died before it could tell."""
    async with _pair(redis_url) as pair:
        await pair.both_know()
        pair.database.rows[ADA[1]] = "new"
        server.set(KEYS.of(ADA).generation, b"another", px=60_000)
        await eventually_async(lambda: in_memory(pair.two) is None)
        assert await pair.two.value() == "new"


async def test_a_generation_that_a_first_load_makes_costs_no_second_look(redis_url: str) -> None:
    """News of one's own load are settled by its store: the next hit is a hit."""
    async with _pair(redis_url) as pair:
        await eventually_async(lambda: is_heard(pair.one))
        for number in range(50):
            key = ("", f"user{number}")
            await pair.one.get(key)
            assert in_memory(pair.one, key) is not None
        # Whatever was still on its way has arrived with an announcement that came after it.
        await pair.one.cache.invalidate("somebody else")
        held = [number for number in range(50) if in_memory(pair.one, ("", f"user{number}")) is not None]
        assert len(held) == 50


async def test_an_instance_that_leaves_is_not_waited_for(redis_url: str, server: Any) -> None:
    """Closed in good order it is no longer among those who listen."""
    async with _pair(redis_url) as pair:
        await pair.both_know()
        async with instance(url=redis_url) as third:
            await eventually_async(lambda: is_heard(third))
            assert listed(server) == 3
        assert listed(server) == 2
        _, reach = await pair.one.cache.invalidate(ADA[1])
        assert (len(reach.confirmed), reach.silent) == (1, ())


async def test_one_that_died_is_told_of_and_waited_for_only_while_it_may_be_alive(redis_url: str, server: Any) -> None:
    """After a few beats an invalidation does not wait for it; it is listed until it is forgotten."""
    async with _pair(redis_url) as pair:
        await pair.both_know()
        server.zadd(CHANNEL.listeners, {entry_of("dead", 90): server.time()[0] * 1000 - 10_000})
        _, reach = await pair.one.cache.invalidate(ADA[1])
        # By its own trust in its memory, which need not be that of whoever invalidates.
        assert reach.silent == (("dead", 90.0),)
        assert [name for name, _ in reach.confirmed] == [name_of(pair.two)]


async def test_a_dead_instance_is_reported_for_as_long_as_its_fleet_trusts_memory(redis_url: str, server: Any) -> None:
    """Where memory is trusted for minutes, an instance may serve its entries minutes after its last heartbeat."""
    policy = replace(STEADY, untrusted_ttl=300.0)
    async with instance(url=redis_url, policy=policy) as one:
        await eventually_async(partial(is_heard, one))
        now = server.time()[0] * 1000
        longest = policy.longest_untold
        gone = 1000 * longest + LISTED_MS + 10_000
        dead = {entry_of("dead", longest): now - 290_000, entry_of("long dead", longest): now - gone}
        server.zadd(CHANNEL.listeners, dead)
        await eventually_async(lambda: listed(server) == 2)
        _, reach = await one.cache.invalidate(ADA[1])
        assert reach.silent == (("dead", longest),)


async def test_an_own_invalidation_drops_nothing_that_was_loaded_after_it(redis_url: str) -> None:
    """An instance reads its own messages too; the server's push of the touched generation may come after them.

    The push does not say which generation is in force, so that what is held may have to be confirmed by Redis once
    more; it is neither dropped nor loaded again.
    """
    async with _pair(redis_url) as pair:
        await pair.both_know()
        for name in (None, ADA[1]):
            pair.database.rows[ADA[1]] = f"after {name}"
            await pair.one.cache.invalidate(name)
            calls = len(pair.database.calls)
            assert await pair.one.value() == await pair.two.value() == f"after {name}"
            # Confirmed once this message, and all that came before it, was read.
            await pair.two.cache.invalidate("another user")
            for each in (pair.one, pair.two):
                held = each.cache.memory.get(ADA)
                assert held is not None
                assert held.value == await each.value() == f"after {name}"
            assert len(pair.database.calls) == calls + 1


async def test_where_tracking_is_forbidden_the_channel_is_heard_all_the_same(
    redis_url: str, server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning says what is not noticed then."""
    server.acl_setuser(
        "listener", enabled=True, passwords=["+word"], keys=["*"], commands=["+@all", "-client|tracking"]
    )
    caplog.set_level(logging.WARNING, "ctxmiddleware")
    url = redis_url.replace("redis://", "redis://listener:word@")
    async with _pair(redis_url) as pair, instance(pair.database, url=url, clock=pair.clock) as third:
        await pair.both_know()
        await eventually_async(lambda: is_heard(third))
        await third.get()
        _, reach = await pair.one.cache.invalidate(ADA[1])
        assert len(reach.confirmed) == 2
        assert in_memory(third) is None
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "Redis does not tell when generations are touched"
    ]


async def test_a_lost_channel_is_told_of_once_and_so_is_its_return(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However often it tries to connect."""
    caplog.set_level(logging.INFO, "ctxmiddleware.redis")
    async with _pair(redis_url) as pair:
        await pair.both_know()
        pair.way.refuse()
        await eventually_async(lambda: not is_heard(pair.two))
        pair.clock.advance(LASTS)
        await pair.two.get()
        pair.way.pass_through()
        await eventually_async(lambda: "heard again" in caplog.text)
        await eventually_async(lambda: is_heard(pair.two))
    said = [record.message.partition(":")[0] for record in caplog.records if "channel" in record.message]
    assert said == ["the channel of invalidations is not heard", "the channel of invalidations is heard again"]


async def test_an_answer_that_is_late_is_a_lost_connection(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Taken for no news, or for the answer to something else, it would put all that follows out of step."""
    caplog.set_level(logging.DEBUG, "ctxmiddleware.redis")
    async with _pair(redis_url, other=replace(PATIENT, timeout=0.5)) as pair:
        await pair.both_know()
        for turn in range(2):
            pair.way.black_hole()
            await eventually_async(lambda: not is_heard(pair.two))
            pair.way.pass_through()
            await eventually_async(lambda count=turn: caplog.text.count("heard again") > count)  # type: ignore[misc]
        pair.database.rows[ADA[1]] = "new"
        await pair.one.cache.invalidate(ADA[1])
        assert in_memory(pair.two) is None
    lost = [record for record in caplog.records if "is not heard" in record.message]
    # A busy machine may be late once more.
    assert len(lost) >= 2
    assert {vars(record)["error_type"] for record in lost} == {"builtins.TimeoutError"}


def _announce(server: Any, kind: str, name: str | None, token: bytes = b"token") -> None:
    """Say what an instance says in a cluster, before and after it has put a new generation in force."""
    digest = b"" if name is None else digest_of(name)
    generation = b"" if kind == "intent" or name is None else server.get(KEYS.of(("", name)).generation)
    server.eval(ANNOUNCE.text, 3, *CHANNEL[:3], token, kind, digest, generation, "an:other:instance")


@pytest.mark.parametrize("name", [ADA[1], None], ids=["invalidate", "clear"])
async def test_what_is_read_between_an_intent_and_its_invalidation_is_not_trusted(
    redis_url: str, server: Any, name: str | None
) -> None:
    """It answers whoever asked, and the next one asks Redis again, until the invalidation is done."""
    async with _pair(redis_url) as pair:
        await pair.both_know(ADA, BOB)
        _announce(server, "intent", name)
        await eventually_async(partial(is_gone, pair.two))
        for _ in range(2):
            assert (await pair.two.get()).origin == "redis"
            assert in_memory(pair.two) is None
        assert (in_memory(pair.two, BOB) is None) is (name is None)
        _announce(server, "done", name)
        await pair.one.cache.invalidate("somebody else")
        assert await pair.two.value() == in_memory(pair.two) == f"{ADA[1]} 1"


async def test_an_intent_without_its_invalidation_is_forgotten(redis_url: str, server: Any) -> None:
    """As where whoever announced it has died: after a while memory is trusted again."""
    async with _pair(redis_url) as pair:
        await pair.both_know()
        _announce(server, "intent", ADA[1])
        await eventually_async(partial(is_gone, pair.two))
        pair.clock.advance(EXPECTED_SECONDS)
        await eventually_async(lambda: pair.two.cache.trust.until > pair.clock())
        assert await pair.two.value() == in_memory(pair.two) == f"{ADA[1]} 1"


async def test_names_that_are_no_text_harm_nobody(redis_url: str, server: Any) -> None:
    """Whoever puts them among the listeners, the senders, or those who wait for a load."""
    hostile = b"\xff\xfe:1:x"
    async with _pair(redis_url) as pair:
        await pair.both_know()
        strange = (b"5000 " + hostile, hostile, b"", b"9" * 400 + b" x", b"9" * 5000 + b" y")
        server.zadd(CHANNEL.listeners, dict.fromkeys(strange, server.time()[0] * 1000 - 10_000))
        _, reach = await pair.one.cache.invalidate(ADA[1])
        assert [name for name, _ in reach.silent] == [hostile.decode(errors="replace")]
        server.eval(ANNOUNCE.text, 3, *CHANNEL[:3], b"token", b"done", digest_of(ADA[1]), b"", hostile)
        await pair.one.cache.invalidate("somebody else")
        assert pair.two.redis is not None
        lease = KeySpace("test", pair.two.redis.codec.shape).of(BOB).lease
        pair.database.hold()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.two.get, BOB)
            await pair.database.started(2)
            server.hset(lease, b"w:" + hostile, b"")
            pair.database.release()
        assert in_memory(pair.two, BOB) == f"{BOB[1]} 1"
        assert not server.exists(lease)


async def test_two_invalidations_of_one_name_are_two(redis_url: str, server: Any) -> None:
    """What is read between the end of the first and the end of the second is not trusted either."""
    async with _pair(redis_url) as pair:
        await pair.both_know()
        for token in (b"one", b"two"):
            _announce(server, "intent", ADA[1], token)
        _announce(server, "done", ADA[1], b"one")
        await pair.one.cache.invalidate("somebody else")
        assert (await pair.two.get()).origin == "redis"
        assert in_memory(pair.two) is None
        _announce(server, "done", ADA[1], b"two")
        await pair.one.cache.invalidate("somebody else")
        assert await pair.two.value() == in_memory(pair.two) == f"{ADA[1]} 1"


async def test_a_generation_deleted_by_hand_during_a_break_is_noticed_behind_the_next_answers(
    redis_url: str, server: Any
) -> None:
    """Nobody told: what was looked up before the connection is looked up again, and served meanwhile."""
    async with _pair(redis_url) as pair:
        await pair.both_know()
        pair.way.refuse()
        pair.database.rows[ADA[1]] = "new"
        server.delete(KEYS.of(("", ADA[1])).generation)
        pair.clock.advance(LASTS)
        pair.way.pass_through()
        await eventually_async(lambda: is_heard(pair.two))
        assert pair.two.counters.get("missed", "channel") == 0
        assert in_memory(pair.two) == f"{ADA[1]} 1"
        await eventually_async(lambda: in_memory(pair.two) == "new")


async def test_a_channel_that_breaks_often_is_soon_heard_again(redis_url: str) -> None:
    """The pause grows while it cannot be heard, and is short again once it was."""
    options = EarOptions(beat=0.01, timeout=10.0, pause=0.02, longest_pause=3600.0)
    connections: list[Connection] = []
    client = redis.asyncio.Redis.from_url(redis_url)

    async def connect() -> Connection:
        connections.append(await connection_for(client, CHANNEL.state))
        return connections[-1]

    follower = Follower(Recorder(), Counters(), set())
    channel = Channel(lambda _: None)
    ear = Ear(
        connect, channel, follower, keys=CHANNEL, generations=KEYS.generations, me="me", options=options,
        token=lambda: b"token",
    )  # fmt: skip
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ear.listen)
        # Doubled each time, the pause would be several minutes by the end.
        for breaks in range(15):
            await eventually_async(partial(_is_back, ear, connections, breaks))
            await connections[-1].disconnect(nowait=True)
        tasks.cancel_scope.cancel()
    await client.aclose()


def _is_back(ear: Ear, connections: list[Connection], breaks: int) -> bool:
    return len(connections) > breaks and ear._has_heard


@pytest.mark.every_loop
async def test_thousands_of_touched_generations_are_told_in_one_go(
    redis_url: str, server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The driver calls itself anew for each push it passes over: the stack must not be full before the last one."""
    caplog.set_level(logging.WARNING, "ctxmiddleware.redis")
    async with _pair(redis_url) as pair:
        await pair.both_know()
        # Without a turn of the event loop in between, so that all of them are there when it reads again.
        for number in range(3000):
            server.set(KEYS.of(("", f"user{number}")).generation, b"by hand")
        server.delete(KEYS.of(("", ADA[1])).generation)
        await eventually_async(partial(is_gone, pair.two))
        assert await pair.two.value() == f"{ADA[1]} 1"
        assert pair.two.counters.get("missed", "channel") == 0
    assert caplog.records == []


async def test_an_inbox_that_begins_anew_at_lower_places_is_read(redis_url: str, server: Any) -> None:
    """It ends when nobody writes for a while, and the clock of the server that makes it again may be behind."""
    async with _pair(redis_url) as pair:
        await pair.both_know()
        inbox = CHANNEL.inbox + name_of(pair.two)
        assert pair.two.redis is not None
        server.xadd(inbox, {"k": "from the future"}, id="99999999999999-0")
        channel = pair.two.redis._fleet._channel
        await eventually_async(lambda: channel.inbox_place == b"99999999999999-0")
        server.delete(inbox)
        pair.way.reset()
        await eventually_async(lambda: not pair.two.redis or not channel.is_heard())
        pair.way.pass_through()
        await eventually_async(lambda: is_heard(pair.two))
        _, reach = await pair.two.cache.invalidate(ADA[1])
        assert [name for name, _ in reach.confirmed] == [name_of(pair.one)]


@pytest.mark.parametrize("key", ["state", "stream", "listeners", "inbox"])
async def test_what_has_another_type_in_the_channel_s_place_is_replaced(redis_url: str, server: Any, key: str) -> None:
    """Whatever somebody has put there: invalidations go through, are confirmed, and are heard."""
    async with _pair(redis_url, options=replace(PATIENT, confirm_timeout=0.25)) as pair:
        await pair.both_know()
        where = CHANNEL.inbox + name_of(pair.one) if key == "inbox" else getattr(CHANNEL, key)

        async def is_confirmed() -> bool:
            _, reach = await pair.one.cache.invalidate(ADA[1])
            return [name for name, _ in reach.confirmed] == [name_of(pair.two)]

        for kind in ("text", "hash", "list", "set"):
            server.delete(where)
            _put(server, kind, where)
            await eventually_async(is_confirmed)
            for each in (pair.one, pair.two):
                await eventually_async(partial(is_heard, each))


def _put(server: Any, kind: str, key: str) -> None:
    match kind:
        case "text":
            server.set(key, "garbage")
        case "hash":
            server.hset(key, mapping={"garbage": "garbage", "n": "9" * 30, "i": "garbage"})
        case "list":
            server.rpush(key, "garbage")
        case _:
            server.sadd(key, "garbage")


async def test_a_listener_from_the_future_is_forgotten(redis_url: str, server: Any) -> None:
    """The clock of a former master was ahead: it would be waited for by every invalidation until then."""
    async with _pair(redis_url) as pair:
        await pair.both_know()
        server.zadd(CHANNEL.listeners, {entry_of("early", 5): server.time()[0] * 1000 + 86_400_000})
        await eventually_async(lambda: listed(server) == 2)


async def test_a_break_of_the_channel_costs_the_source_nothing(redis_url: str, server: Any) -> None:
    """Thousands look again behind the answer; where Redis has no time for all of them, the channel vouches."""
    crowd = [("", f"user{number}") for number in range(3000)]
    async with _pair(redis_url, policy=STEADY) as pair:
        two, keys = pair.two, {key[1] for key in crowd}
        await eventually_async(lambda: is_heard(two))
        for start in range(0, len(crowd), 100):
            async with anyio.create_task_group() as tasks:
                for key in crowd[start : start + 100]:
                    tasks.start_soon(two.get, key)
        loads = len(pair.database.calls)
        assert loads == len(keys)
        pair.way.reset()
        await eventually_async(lambda: not is_heard(two))
        pair.clock.advance(STEADY.untrusted_ttl - 0.5)
        pair.way.pass_through()
        await eventually_async(lambda: is_heard(two) and two.cache.trust.until > pair.clock() + 1)
        # All in one turn: far more than one trip to Redis takes.
        for key in crowd:
            assert in_memory(two, key) is not None
        await eventually_async(lambda: len(two.cache.flights) == 0)
        assert len(pair.database.calls) == loads


class Busy:
    """A real tier that has no time for look-ups where the test says so."""

    def __init__(self, tier: RedisTier[str]) -> None:
        self.store, self.listen, self.claim, self.release = tier.store, tier.listen, tier.claim, tier.release
        self.invalidate, self.landings, self.remember = tier.invalidate, tier.landings, tier.remember
        self.hottest, self.recall, self._tier = tier.hottest, tier.recall, tier
        self.hold, self.let_go, self.mark, self.renew = tier.hold, tier.let_go, tier.mark, tier.renew
        self.is_busy = False
        self.looks = 0

    @property
    def is_listed(self) -> bool:
        """Whether the reports of other instances count this one in."""
        return self._tier.is_listed

    async def look(self, keys: Sequence[Key], keep_ms: int) -> list[Look[str] | None]:
        """Look, or say that nobody can say now."""
        self.looks += 1
        return [None] * len(keys) if self.is_busy else await self._tier.look(keys, keep_ms)


async def test_a_look_that_only_was_to_confirm_is_put_off_where_redis_has_no_time(redis_url: str) -> None:
    """The channel vouches for what is held: it is asked again a little later, and the source not at all."""
    tier = redis_tier(redis_url)
    async with tier.opened:
        busy = Busy(tier)
        async with instance(shared=busy) as one:
            await one.get()
            one.cache.hearing.prove(one.clock() + STEADY.untrusted_ttl)
            one.clock.advance(STEADY.untrusted_ttl)
            one.cache.hearing.told(one.clock())
            busy.is_busy, busy.looks = True, 0
            for _ in range(3):
                assert in_memory(one) == f"{ADA[1]} 1"
                await eventually_async(lambda: len(one.cache.flights) == 0)
            assert (busy.looks, len(one.database.calls)) == (1, 1)
            # Asked again after a second or two, while the channel vouches.
            one.clock.advance(2)
            one.cache.hearing.prove(one.clock())
            assert in_memory(one) == f"{ADA[1]} 1"
            await eventually_async(lambda: busy.looks == 2 and len(one.cache.flights) == 0)
            # Once nobody vouches for it any more the source is asked.
            one.clock.advance(STEADY.untrusted_ttl)
            assert (await one.get()).origin == "db"
            assert len(one.database.calls) == 2


async def test_instances_with_ready_clients_receive_the_first_invalidation_of_an_empty_server(redis_url: str) -> None:
    """The server is looked at before the channel is begun there, or the channel would begin anew under them."""
    async with (
        redis.asyncio.Redis.from_url(redis_url) as first,
        redis.asyncio.Redis.from_url(redis_url) as second,
        instance(url=first) as one,
        instance(url=second) as other,
    ):
        await one.get()
        await other.get()
        _, reach = await one.cache.invalidate(ADA[1])
        assert reach.silent == ()
        assert len(reach.confirmed) == 1
        assert other.counters.get("missed", "channel") == 0
