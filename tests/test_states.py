"""The states of Redis and of the database in the stats: by their last answers, `unknown` before the first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ctxmiddleware import ContextPlugin, Identity, SourceUnavailable, SupabaseSource, UserContext
from ctxmiddleware.breaker import RateBreaker
from ctxmiddleware.secret import Secret
from ctxmiddleware.testing import FakeClock
from examples.servers import SupabaseFront, Valkey
from examples.servers.ports import free_port

from .backends import asyncio_only
from .cache.rig import PATIENT, instance
from .people import ADA, BOB, plugin_of
from .waiting import eventually_async

pytestmark = pytest.mark.anyio

# Redis is given up after three faults: fewer are not hidden by that.
NEVER_GIVEN_UP = replace(PATIENT, fault_threshold=1000)


@pytest.fixture
def own() -> Iterator[Valkey]:
    """A Valkey that this test may stop."""
    with Valkey.start() as server:
        yield server


def health_of(breaker: RateBreaker) -> str:
    """Return the state of a breaker, which changes between two calls."""
    return breaker.health


def redis_state(plugin: ContextPlugin[UserContext]) -> str:
    """Return the state of Redis in the stats."""
    stats = plugin.stats().redis
    assert stats is not None
    return stats.state


@asyncio_only
async def test_redis_that_was_never_reached_is_failing() -> None:
    """The channel that could not be opened counts before any request has asked Redis."""
    plugin = plugin_of(redis=f"redis://127.0.0.1:{free_port()}", redis_options=PATIENT)
    assert redis_state(plugin) == "not open"
    async with plugin:
        assert redis_state(plugin) == "failing"
        redis = plugin.stats().redis
        assert redis is not None
        assert (redis.faults, redis.hits + redis.misses) == (1, 0)


@asyncio_only
async def test_redis_is_unknown_until_its_first_answer(redis_url: str) -> None:
    """A pool without connections shows nothing of the server."""
    async with instance(url=redis_url, deaf=True) as one:
        assert one.redis is not None
        assert one.redis.health() == "unknown"
        await one.get()
        assert one.redis.health() == "ok"


@asyncio_only
async def test_redis_that_was_stopped_is_failing_until_it_answers_again(own: Valkey) -> None:
    """The loss of the channel is seen without any request, and so is the return of the server."""
    async with plugin_of(redis=own.url, redis_options=NEVER_GIVEN_UP) as plugin:
        await eventually_async(lambda: redis_state(plugin) == "ok")
        own.kill()
        await eventually_async(lambda: redis_state(plugin) == "failing")
        await plugin.resolve(ADA)
        assert redis_state(plugin) == "failing"
        own.restart()
        await eventually_async(lambda: redis_state(plugin) == "ok")


async def test_a_way_to_the_database_is_known_by_its_last_call(front: SupabaseFront) -> None:
    """One failure is enough, long before the way is left alone; a way that was not taken is unknown."""
    source = SupabaseSource(front.url, Secret(front.secret_key))
    async with plugin_of(source) as plugin:  # type: ignore[arg-type]  # as any source
        assert plugin.stats().loads.paths == {"rpc": "unknown", "batch": "unknown", "tables": "unknown"}
        await plugin.resolve(ADA)
        assert plugin.stats().loads.paths == {"rpc": "ok", "batch": "unknown", "tables": "unknown"}
        front.fault(status=503, times=None)
        with pytest.raises(SourceUnavailable):
            await plugin.resolve(BOB)
        assert plugin.stats().loads.paths["rpc"] == "failing"
        assert source.path_states()["rpc"] == "closed"
        front.reset()
        await plugin.resolve(BOB)
        assert plugin.stats().loads.paths["rpc"] == "ok"


async def test_a_source_without_ways_of_its_own_has_the_same_words() -> None:
    """The call for one and the call for many are its ways."""
    async with plugin_of() as plugin:
        assert plugin.stats().loads.paths["fetch"] == "unknown"
        await plugin.resolve(ADA)
        assert plugin.stats().loads.paths["fetch"] == "ok"


def test_a_breaker_is_failing_while_it_is_open_and_probing_while_one_call_tries() -> None:
    """An open breaker is not `ok`, and a probe is distinguished from both."""
    clock = FakeClock()
    breaker = RateBreaker(clock, least=2, open_for=1.0)
    assert health_of(breaker) == "unknown"
    for ticket in (breaker.admit(), breaker.admit()):
        assert ticket is not None
        breaker.failure(ticket)
    assert (breaker.state, health_of(breaker)) == ("open", "failing")
    clock.now += 1.0
    assert health_of(breaker) == "probing"
    ticket = breaker.admit()
    assert ticket is not None
    assert health_of(breaker) == "probing"
    breaker.success(ticket)
    assert health_of(breaker) == "ok"


def test_one_failure_is_seen_though_the_breaker_stays_closed() -> None:
    """A breaker that is closed says nothing of the last call."""
    breaker = RateBreaker(FakeClock())
    ticket = breaker.admit(Identity(ADA))
    assert ticket is not None
    breaker.failure(ticket, Identity(ADA))
    assert (breaker.state, health_of(breaker)) == ("closed", "failing")
    breaker.success(ticket)
    assert health_of(breaker) == "ok"
