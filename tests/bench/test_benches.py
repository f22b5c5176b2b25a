"""Whether the benches measure what they say; how long anything took is theirs alone."""

from __future__ import annotations

from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ctxmiddleware import ContextPlugin, UserContext, UserContextMiddleware
from tests.backends import ASYNCIO

from ..chaos import bench as chaos
from . import eviction, hung_redis, mixup, peers, peers_fleet, sealing, storm


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
async def test_ours_is_right_in_every_case() -> None:
    """Fresh after a delete during a load; nineteen of twenty served by one load; a thousand by one."""
    outcomes = [await case(peers.ours) for case in peers.CASES.values()]
    assert outcomes == ["right", "19 of 19, 1 load", "1 load"]


def test_four_processes_that_miss_together_load_once() -> None:
    """A thousand callers of one user, in processes that share a Redis and nothing else."""
    assert peers_fleet.loads("ctxmiddleware") == "1 load"


def test_five_hundred_who_miss_together_cost_five_calls() -> None:
    """A hundred to a call, two calls at a time at most, counted by the server."""
    at_once, arriving = storm.run(500)
    assert (at_once["calls"], at_once["most at a time"]) == (5, 2)
    assert 5 <= int(str(arriving["calls"])) < 500
    assert int(str(arriving["most at a time"])) <= 4


def test_while_redis_hangs_everybody_is_served_and_the_source_is_not_flooded() -> None:
    """No resolve fails, and three instances that are allowed one call each never make more than three at a time."""
    # Trusted for so short a time that everybody has to be loaded again and again.
    policy = replace(hung_redis.POLICY, untrusted_ttl=0.5, max_loads=1)
    rows = hung_redis.run(seconds=4.0, users=200, policy=policy)
    assert [row["Redis"] for row in rows] == ["well", "hung", "well again"]
    assert [row["failed"] for row in rows] == [0, 0, 0]
    assert float(str(rows[1]["source calls/s"])) > 20
    assert all(int(str(row["most at a time"])) <= hung_redis.INSTANCES for row in rows)


@pytest.mark.anyio
async def test_nobody_gets_another_s_context() -> None:
    """Thousands of requests of hundreds of users, a part of them cancelled anywhere."""
    tally = await mixup.measure(6000, users=300)
    assert (tally.requests, tally.mixed_up) == (6000, 0)
    assert tally.answered > 4000
    assert tally.cancelled > 100


@pytest.mark.anyio
async def test_a_mix_up_would_be_found() -> None:
    """A middleware that keeps the context of the request under way in one place for all of them."""

    class Shared(UserContextMiddleware):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def inner(inside: Scope, receive: Receive, send: Send) -> None:
                self.last = inside["user_context"]
                await anyio.lowlevel.checkpoint()
                inside["user_context"] = inside["state"]["user_context"] = self.last
                await routes(inside, receive, send)

            await UserContextMiddleware(inner, plugin=plugin_of[0])(scope, receive, send)

    routes = Starlette(routes=[Route("/me", mixup.me)])
    plugin_of: list[ContextPlugin[UserContext]] = []

    def build(plugin: ContextPlugin[UserContext]) -> ASGIApp:
        plugin_of.append(plugin)
        return Shared(routes, plugin=plugin)

    assert (await mixup.measure(3000, users=300, build=build)).mixed_up > 100


def test_an_invalidation_is_confirmed_by_each_of_the_other_processes() -> None:
    """One after the other, each by all three; the bench itself checks who has."""
    (row,) = chaos.told(5)
    assert row["invalidations"] == 5
    assert 0 < float(str(row["p50 ms"])) <= float(str(row["p99 ms"]))


def test_no_policy_is_better_than_the_best_possible_and_ours_is_not_far_from_lru() -> None:
    """On every shape of requests but one it is as good or better; that one moves on faster than memory turns over."""
    for name, rates in eviction.measure(30_000):
        best, lru = rates.pop("best possible"), rates["LRU (cachetools)"]
        assert all(rate <= best for rate in rates.values()), name
        assert rates["ctxmiddleware"] >= lru - (7.0 if "very soon" in name else 1.0), name


def test_sealing_adds_a_header_a_nonce_and_a_tag() -> None:
    """So many bytes and no more, whatever the size of the context."""
    clear, sealed = sealing.run(1)
    assert int(str(sealed["bytes"])) - int(str(clear["bytes"])) == 14 + sum(map(len, sealing.FENCE)) + 12 + 16
