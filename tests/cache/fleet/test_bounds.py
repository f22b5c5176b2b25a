"""Whether what a report says of instances that have not confirmed holds, whatever they are cut off from."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest
import redis

from ctxmiddleware.cache.policy import CachePolicy
from ctxmiddleware.cache.redis import fleet
from ctxmiddleware.cache.redis.channel import Channel, Follower
from ctxmiddleware.cache.redis.ear import Ear
from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.cache.redis.lua.channel import LISTED_MS, Beat
from ctxmiddleware.cache.redis.news import News
from ctxmiddleware.cache.redis.register import entry_of
from ctxmiddleware.cache.redis.servers.driver import Call
from ctxmiddleware.cache.redis.tier import RedisTier
from ctxmiddleware.cache.redis.wire import Wire
from ctxmiddleware.cache.shared import Reach
from ctxmiddleware.cache.tiered import TieredCache
from ctxmiddleware.errors import SourceUnavailable
from ctxmiddleware.stats import Counters
from ctxmiddleware.testing import FakeClock
from examples.servers import TcpProxy, Valkey
from tests.backends import asyncio_only
from tests.cache.rig import ADA, PATIENT, STEADY, Database, Instance, instance, redis_tier
from tests.cache.switch import Switch
from tests.waiting import eventually_async

pytestmark = [pytest.mark.anyio, asyncio_only]

LISTENERS = KeySpace("test", b"").channel().listeners
LONGEST = STEADY.longest_untold
# The instances that do not confirm are cut off: a short wait for them can only be too long.
QUICK = replace(PATIENT, confirm_timeout=0.05, probe_every=0.05, check_every=0.05)


@pytest.fixture
def own() -> Iterator[Valkey]:
    """A Valkey that this test may stop and restart."""
    with Valkey.start() as server:
        yield server


@pytest.fixture
def server(redis_url: str) -> Iterator[Any]:
    """A client of the server, for what is done by hand."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


def _is_listed(one: Instance) -> bool:
    assert one.redis is not None
    return _is_known(one.redis)


def _is_known(tier: RedisTier[str]) -> bool:
    return tier.is_listed and tier.is_heard()


@asynccontextmanager
async def _listed(url: str, **arguments: Any) -> AsyncIterator[Instance]:
    async with instance(url=url, **arguments) as one:
        await eventually_async(partial(_is_listed, one))
        yield one


async def _invalidate(one: Instance) -> Reach:
    _, reach = await one.cache.invalidate(ADA[1])
    return reach


def _is_old_enough(server: Any) -> None:
    """Let the list look as old as it has to be before none can be missing."""
    now = server.time()[0] * 1000
    server.zadd(LISTENERS, {"begun": -(now - LISTED_MS - 1000 * LONGEST - 60_000)})


async def _value(one: Instance) -> str | None:
    try:
        return (await one.get()).entry.value
    except SourceUnavailable:
        return None


@pytest.mark.parametrize("stale_untrusted_for", [None, 0.0, 40.0])
async def test_an_instance_that_is_cut_off_from_everything_stops_in_the_time_reported(
    redis_url: str, stale_untrusted_for: float | None
) -> None:
    """With neither Redis nor a source it serves the old context until its bound, and not beyond."""
    policy, clock = replace(STEADY, stale_untrusted_for=stale_untrusted_for), FakeClock()
    port = redis.Redis.from_url(redis_url).connection_pool.connection_kwargs["port"]
    with TcpProxy.start("127.0.0.1", port) as way:
        url, database = f"redis://127.0.0.1:{way.port}/0", Database()
        async with (
            _listed(redis_url, policy=policy, clock=clock, options=QUICK) as one,
            _listed(url, policy=policy, clock=clock, options=QUICK, database=database) as other,
        ):
            old = await other.value()
            way.refuse()
            database.error = SourceUnavailable("down")
            (silent,) = (await _invalidate(one)).silent
            stops_within = policy.untrusted_ttl + (300.0 if stale_untrusted_for is None else stale_untrusted_for)
            assert silent == (other.redis.instance if other.redis else "", stops_within)
            clock.advance(stops_within - 0.1)
            assert await _value(other) == old
            clock.advance(0.1)
            assert await _value(other) is None


async def test_all_that_are_listed_have_confirmed_and_none_can_be_missing(redis_url: str, server: Any) -> None:
    """The list is older than any instance may serve that is not in it."""
    async with _listed(redis_url) as one, _listed(redis_url):
        _is_old_enough(server)
        reach = await _invalidate(one)
        assert (len(reach.confirmed), reach.silent, reach.unlisted) == (1, (), None)


@pytest.mark.parametrize("loss", ["flushall", "deleted", "never there before", "another type"])
async def test_a_young_list_may_lack_an_instance(redis_url: str, server: Any, loss: str) -> None:
    """An instance that was in the former list, and is cut off, would be in no report."""
    async with _listed(redis_url) as one:
        if loss != "never there before":
            _is_old_enough(server)
            assert (await _invalidate(one)).unlisted is None
        if loss == "flushall":
            server.flushall()
        elif loss != "never there before":
            server.delete(LISTENERS)
        if loss == "another type":
            server.set(LISTENERS, "garbage")
        reach = await _invalidate(one)
        assert reach.unlisted is not None
        assert reach.unlisted[0] == LONGEST
        assert "has kept the list of instances for" in reach.unlisted[1]


async def test_a_list_that_gets_older_bounds_what_it_lacks(redis_url: str, server: Any) -> None:
    """The last second at which an instance may be unlisted and serve is known."""
    async with _listed(redis_url) as one:
        now = server.time()[0] * 1000
        server.zadd(LISTENERS, {"begun": -(now - LISTED_MS - 100_000)})
        reach = await _invalidate(one)
        assert reach.unlisted is not None
        assert LONGEST - 110 < reach.unlisted[0] <= LONGEST - 100


@pytest.mark.parametrize("what", ["from an old file", "empty"])
async def test_a_restarted_server_has_a_young_list(own: Valkey, what: str) -> None:
    """Its list is from before its run: an instance may have registered after the file was written."""
    async with _listed(own.url, options=QUICK) as one:
        with redis.Redis.from_url(own.url) as client:
            _is_old_enough(client)
            assert (await _invalidate(one)).unlisted is None
            if what == "from an old file":
                client.save()
        own.kill()
        own.restart()
        reach = await _invalidate(one)
        assert reach.unlisted is not None
        assert reach.unlisted[0] == LONGEST


async def test_the_longest_time_is_that_of_all_registered_instances(redis_url: str, server: Any) -> None:
    """Not the caller's own: an instance with another policy may be the one that is missing."""
    policy = CachePolicy(stale_for=3600.0)
    async with _listed(redis_url) as one:
        async with _listed(redis_url, policy=policy):
            pass
        async with _listed(redis_url) as newcomer:
            reach = await _invalidate(newcomer)
            assert reach.unlisted is not None
            assert reach.unlisted[0] == policy.longest_untold
        # Not in Redis any more, but known here since the next beat.
        await eventually_async(lambda: _longest_known(one) == policy.longest_untold)
        server.flushall()
        reach = await _invalidate(one)
        assert reach.unlisted is not None
        assert reach.unlisted[0] == policy.longest_untold


def _is_proven_after(one: Instance, until: float) -> bool:
    return one.cache.trust.until > until


def _longest_known(one: Instance) -> float:
    assert one.redis is not None
    return one.redis._fleet._channel.longest_untold


async def test_an_instance_keeps_its_place_for_as_long_as_it_may_serve(redis_url: str, server: Any) -> None:
    """Partitioned for minutes it is still listed, with the time that is left to it; then it is struck off."""
    async with _listed(redis_url) as one:
        now = server.time()[0] * 1000
        ages = {"first": 200_000, "second": LISTED_MS + 100_000, "third": LISTED_MS + 1000 * LONGEST + 60_000}
        server.zadd(LISTENERS, {entry_of(name, LONGEST): now - age for name, age in ages.items()})
        await eventually_async(lambda: server.zcount(LISTENERS, "(0", "+inf") == 3)
        silent = dict((await _invalidate(one)).silent)
        assert silent.keys() == {"first", "second"}
        assert silent["first"] == LONGEST
        assert LONGEST - 110 < silent["second"] <= LONGEST - 100


async def test_a_server_that_does_not_say_which_one_it_is_has_no_list_to_rely_on(own: Valkey) -> None:
    """The list may be from before the run of the server: no run id shows otherwise."""
    with redis.Redis.from_url(own.url) as client:
        client.execute_command("ACL", "SETUSER", "narrow", "on", ">secret", "~*", "+@all", "-info")
        async with _listed(f"redis://narrow:secret@127.0.0.1:{own.port}/0") as one:
            _is_old_enough(client)
            reach = await _invalidate(one)
            assert reach.unlisted is not None
            assert reach.unlisted[0] == LONGEST
            assert "allow INFO" in reach.unlisted[1]


async def test_an_instance_that_no_report_counts_in_keeps_nothing(own: Valkey) -> None:
    """It has never reached Redis: a load answers its own callers only, and no stale value replaces the source."""
    database = Database()
    own.kill()
    async with instance(database, url=own.url, options=QUICK) as one:
        assert one.redis is not None
        assert not one.redis.is_listed
        assert (await one.get()).stale is False
        await one.get()
        assert len(database.calls) == 2
        database.error = SourceUnavailable("down")
        assert await _value(one) is None
        own.restart()
        database.error = None
        await eventually_async(partial(_is_listed, one))
        await eventually_async(one.redis.is_up)
        await one.get()
        calls = len(database.calls)
        assert (await one.get()).origin == "memory"
        assert len(database.calls) == calls


async def test_a_caller_waits_for_no_call_that_an_unlisted_instance_began_before(own: Valkey) -> None:
    """The user may have been invalidated since the call began, without an announcement to this instance."""
    database = Database()
    own.kill()
    async with instance(database, url=own.url, options=QUICK) as one, anyio.create_task_group() as callers:
        database.hold()
        answers: list[str | None] = []

        async def ask() -> None:
            answers.append(await one.value())

        callers.start_soon(ask)
        await database.started(1)
        database.rows[ADA[1]] = "new"
        callers.start_soon(ask)
        await database.started(2)
        database.release()
        await eventually_async(lambda: len(answers) == 2)
        assert sorted(map(str, answers)) == [f"{ADA[1]} 1", "new"]


async def _deaf(ear: Ear) -> None:
    ear.settled.set()
    await anyio.sleep(math.inf)


@asynccontextmanager
async def _unlisted(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Instance]:
    """An instance that can ask Redis, and is in no list."""
    with monkeypatch.context() as patches:
        patches.setattr(Ear, "listen", _deaf)
        async with instance(url=url) as one:
            yield one


def _register(one: Instance) -> None:
    assert one.redis is not None
    channel = one.redis._fleet._channel
    channel.listed(Beat(b"", 0, b"0-0"), channel.now())
    assert one.redis.is_listed


async def test_a_look_up_is_unlisted_that_began_before_the_instance_was_listed(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was invalidated between: a caller that came after that looks again, and memory is not trusted."""
    async with (
        _listed(redis_url) as other,
        _unlisted(redis_url, monkeypatch) as one,
        anyio.create_task_group() as tasks,
    ):
        assert one.redis is not None
        await other.get()
        look, answered, answers = one.redis.look, anyio.Event(), list[str | None]()

        async def ask() -> None:
            answers.append(await one.value())

        async def late(keys: Any, keep_ms: int) -> Any:
            found = await look(keys, keep_ms)
            if not answered.is_set():
                answered.set()
                other.database.rows[ADA[1]] = one.database.rows[ADA[1]] = "new"
                await _invalidate(other)
                tasks.start_soon(ask)
                await eventually_async(lambda: bool(answers))
                _register(one)
            return found

        monkeypatch.setattr(one.redis, "look", late)
        await one.get()
        assert answers == ["new"]
        assert one.cache.peek(ADA) is None


async def test_what_warms_memory_is_unlisted_where_redis_was_asked_before_the_instance_was_listed(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user invalidated in between would come back into a memory that is trusted."""
    async with _listed(redis_url) as other, _unlisted(redis_url, monkeypatch) as one:
        assert one.redis is not None
        assert one.cache.warming is not None
        assert other.cache.warming is not None
        await other.get()
        await other.get()
        await other.cache.warming.remember()
        recall = one.redis.recall

        async def late(called: Any, keep_ms: int) -> Any:
            found = await recall(called, keep_ms)
            await _invalidate(other)
            _register(one)
            return found

        monkeypatch.setattr(one.redis, "recall", late)
        assert await one.cache.warming.recall() == 1
        assert one.cache.peek(ADA) is None


async def test_an_instance_without_a_subscription_stays_listed(own: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its look-ups work, so that it may serve: it registers over the connections that they take."""
    monkeypatch.setattr(fleet, "REGISTERED_EVERY", 0.05)

    monkeypatch.setattr(Ear, "listen", _deaf)
    async with instance(url=own.url) as one:
        assert one.redis is not None
        await eventually_async(lambda: one.redis is not None and one.redis.is_listed)
        assert not one.redis.is_heard()
        with redis.Redis.from_url(own.url) as client:
            assert [name.split()[1].decode() for name in client.zrange(LISTENERS, "(0", "+inf", byscore=True)] == [
                one.redis.instance
            ]


async def test_an_answer_that_comes_later_than_the_report_says_is_not_given(own: Valkey) -> None:
    """The source answered after minutes, and Redis cannot say whether the user was invalidated meanwhile."""
    database, clock = Database(), FakeClock()
    policy = replace(STEADY, stale_untrusted_for=0.0)
    with Switch.start("127.0.0.1", own.port) as way:
        async with (
            _listed(way.url, database=database, clock=clock, policy=policy, options=QUICK) as one,
            anyio.create_task_group() as callers,
        ):
            database.hold()
            answers: list[str | None] = []

            async def ask() -> None:
                answers.append(await _value(one))

            callers.start_soon(ask)
            await database.started(1)
            way.refuse()
            clock.advance(policy.longest_untold)
            database.release()
            await eventually_async(lambda: len(answers) == 1)
            assert answers == [None]


async def test_an_instance_that_has_left_serves_nothing_that_it_had(redis_url: str, server: Any) -> None:
    """No report counts it in any more: opened again, cut off, it has to ask, and nothing stands in for the source."""
    database, clock = Database(), FakeClock()
    async with _listed(redis_url) as one, AsyncExitStack() as stack:
        tier = redis_tier(redis_url, options=QUICK)
        cache: TieredCache[str] = TieredCache(STEADY, database, shared=tier, counters=Counters(), clock=clock)
        async with tier.opened, cache.flights.opened:
            await eventually_async(lambda: tier.is_listed and tier.is_heard())
            await cache.get(ADA)
            assert cache.peek(ADA) is not None
        _is_old_enough(server)
        reach = await _invalidate(one)
        assert (reach.silent, reach.unlisted) == ((), None)
        assert cache.peek(ADA) is None
        await stack.enter_async_context(tier.opened)
        await stack.enter_async_context(cache.flights.opened)
        database.error = SourceUnavailable("down")
        server.delete(KeySpace("test", tier.codec.shape).of(ADA).value)
        with pytest.raises(SourceUnavailable):
            await cache.get(ADA)


async def test_one_instance_that_knows_the_longest_time_restores_it(redis_url: str, server: Any) -> None:
    """Redis has lost the longest time; a new instance reports it all the same."""
    policy = CachePolicy(stale_for=3600.0)
    async with _listed(redis_url) as one:
        async with _listed(redis_url, policy=policy):
            await eventually_async(lambda: _longest_known(one) == policy.longest_untold)
        server.flushall()
        await eventually_async(lambda: server.zscore(LISTENERS, "longest") == -1000 * policy.longest_untold)
        await eventually_async(lambda: server.exists(KeySpace("test", b"").incarnation()[0]))
        async with _listed(redis_url) as newcomer:
            reach = await _invalidate(newcomer)
            assert reach.unlisted is not None
            assert reach.unlisted[0] == policy.longest_untold


async def test_what_was_loaded_without_a_look_is_not_vouched_for_by_the_channel(redis_url: str) -> None:
    """It may be from before an invalidation: it is trusted for `untrusted_ttl` and no longer."""
    database, clock = Database(), FakeClock()
    async with _listed(redis_url, database=database, clock=clock) as one:
        assert one.redis is not None
        session = one.redis._sessions.current
        for _ in range(10):
            session.fault(TimeoutError())
        assert (await one.get()).origin == "db"
        assert one.cache.peek(ADA) is not None
        session.success()
        database.rows[ADA[1]] = "new"
        for _ in range(4):
            clock.advance(STEADY.untrusted_ttl / 4)
            await eventually_async(partial(_is_proven_after, one, one.cache.trust.until))
        assert one.cache.peek(ADA) is None
        assert await one.value() == "new"


async def test_what_lands_after_the_instance_has_left_is_not_kept(redis_url: str) -> None:
    """Redis has confirmed its generation, and the next one is not announced to this instance."""
    async with _listed(redis_url) as one:
        one.database.hold()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.get)
            await one.database.started(1)
            one.cache.hearing.left()
            one.database.release()
        assert one.cache.peek(ADA) is None
        entry = one.cache.memory.get(ADA)
        assert entry is None or one.cache.trust.of(entry) == -math.inf


async def test_a_beat_that_is_answered_after_the_instance_has_left_lists_it_no_more() -> None:
    """Cut off when it is opened again, it would take itself for listed, and no report would count it in."""
    clock, beat = FakeClock(), Beat(b"", 0, b"0-0")
    channel = Channel(lambda names: None, clock)
    before = clock()
    assert channel.listed(beat, before)
    channel.leave_list()
    assert not channel.listed(beat, before)
    assert not channel.is_listed()
    clock.advance(1.0)
    meanwhile = clock()
    assert channel.listed(beat, meanwhile)
    assert not channel.is_listed()
    channel.left_list()
    assert not channel.listed(beat, meanwhile)
    assert not channel.is_listed()
    clock.advance(1.0)
    assert channel.listed(beat, clock())
    assert channel.is_listed()


async def test_what_is_cancelled_while_it_reads_news_sends_no_beat_any_more(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would come after the LEAVE, and every invalidation would wait for an instance that is gone."""
    take, send, sent = Follower.take, Wire.send, list[str]()
    tier = redis_tier(redis_url, options=QUICK)
    cache: TieredCache[str] = TieredCache(STEADY, Database(), shared=tier, counters=Counters(), clock=FakeClock())
    async with _listed(redis_url, options=QUICK) as other, tier.opened, cache.flights.opened:
        await eventually_async(partial(_is_known, tier))
        tasks = tier._sessions.current._tasks
        assert tasks is not None

        def take_and_end(follower: Follower, news: Sequence[News]) -> list[News]:
            taken = take(follower, news)
            if follower is tier._fleet._follower and news:
                tasks.cancel_scope.cancel()
            return taken

        async def note(wire: Wire) -> None:
            words = [str(word) for command in wire._commands for word in command]
            if tasks.cancel_scope.cancel_called and any(word.endswith(tier.instance) for word in words):
                sent.append(words[0])
            await send(wire)

        monkeypatch.setattr(Follower, "take", take_and_end)
        monkeypatch.setattr(Wire, "send", note)
        await other.cache.invalidate(ADA[1])
        await eventually_async(lambda: tier._sessions.peek() is None)
        assert sent == []


async def test_an_event_loop_that_begins_while_the_last_one_leaves_is_listed_in_the_end(redis_url: str) -> None:
    """What removes the one from the list removes the other too, which hears on, and counts on no list until then."""
    tier = redis_tier(redis_url, options=QUICK)
    cache: TieredCache[str] = TieredCache(STEADY, Database(), shared=tier, counters=Counters(), clock=FakeClock())
    listening = tier._fleet
    async with tier.opened, cache.flights.opened:
        await eventually_async(partial(_is_known, tier))
        with redis.Redis.from_url(redis_url) as client:
            entry = entry_of(tier.instance, LONGEST)
            before = client.zscore(LISTENERS, entry)
            leaving = listening.leave()
            listening._loops.append(None)
            assert leaving is not None
            await eventually_async(lambda: client.zscore(LISTENERS, entry) != before)
            assert not tier.is_listed
            await tier._sessions.current.once(leaving)
            assert not tier.is_listed
            listening.left(leaving)
            await eventually_async(partial(_is_known, tier))
            assert client.zscore(LISTENERS, entry) is not None


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_registration_that_is_answered_after_the_instance_has_left_lists_it_no_more(
    monkeypatch: pytest.MonkeyPatch, *, leaves: bool
) -> None:
    """It is sent over the pool where the channel is not heard."""
    monkeypatch.setattr(fleet, "REGISTERED_EVERY", 0.001)
    tier = redis_tier("redis://127.0.0.1:1/0", options=QUICK)
    TieredCache(STEADY, Database(), shared=tier, counters=Counters(), clock=FakeClock())
    members, sent = tier._fleet, list[Call]()
    assert members._follower is not None

    class Way:
        async def run(self, calls: Sequence[Call]) -> list[object]:
            sent.extend(calls)
            if leaves:
                members._channel.leave_list()
            return [[calls[0].arguments[0], [b"incarnation", 0, b"0-0", 0]]]

    way: Any = Way()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(members._stay_listed, way, members._follower)
        # The second is sent once the first was answered.
        await eventually_async(lambda: len(sent) > 1)
        assert tier.is_listed is not leaves
        tasks.cancel_scope.cancel()
