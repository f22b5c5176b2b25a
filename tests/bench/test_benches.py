"""Whether the benches measure what they say; how long anything took is theirs alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ctxmiddleware import CachePolicy
from tests.backends import ASYNCIO

from ..chaos import bench as chaos
from ..matrix import Cases
from . import eviction, hung_redis, peers, peers_fleet, sealing, storm


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
    # The machine may be busy enough for a call to be slow, which would let another one begin: more than two never may.
    at_once, arriving = storm.run(500, CachePolicy(max_batches=2, max_loads=2))
    assert at_once["calls"] == 5
    assert 5 <= int(str(arriving["calls"])) < 500
    assert all(1 <= int(str(each["most at a time"])) <= 2 for each in (at_once, arriving))


def test_while_redis_hangs_everybody_is_served_and_the_source_is_not_flooded(cases: Cases) -> None:
    """No resolve fails, and three instances that are allowed one call each never make more than three at a time."""
    # Trusted for so short a time that everybody has to be loaded again and again.
    policy = replace(hung_redis.POLICY, untrusted_ttl=0.5, max_loads=1)
    rows = hung_redis.run(seconds=2.0 if cases is not Cases.FULL else 4.0, users=200, policy=policy)
    assert [row["Redis"] for row in rows] == ["well", "hung", "well again"]
    assert [row["failed"] for row in rows] == [0, 0, 0]
    # Two hundred people are more than one call for each instance.
    assert int(str(rows[1]["source calls"])) > hung_redis.INSTANCES
    assert all(int(str(row["most at a time"])) <= hung_redis.INSTANCES for row in rows)


def test_an_invalidation_is_confirmed_by_each_of_the_other_processes() -> None:
    """One after the other, each by all three; the bench itself checks who has."""
    (row,) = chaos.told(5)
    assert row["invalidations"] == 5
    assert 0 < float(str(row["p50 ms"])) <= float(str(row["p99 ms"]))


def test_no_policy_is_better_than_the_best_possible_and_ours_is_not_far_from_lru(cases: Cases) -> None:
    """On every shape of requests but one it is as good or better; that one moves on faster than memory turns over."""
    for name, rates in eviction.measure(30_000 if cases is Cases.FULL else 10_000):
        best, lru = rates.pop("best possible"), rates["LRU (cachetools)"]
        assert all(rate <= best for rate in rates.values()), name
        assert rates["ctxmiddleware"] >= lru - (7.0 if "very soon" in name else 1.0), name


def test_sealing_adds_a_header_a_nonce_and_a_tag() -> None:
    """So many bytes and no more, whatever the size of the context."""
    clear, sealed = sealing.run(1)
    assert int(str(sealed["bytes"])) - int(str(clear["bytes"])) == 14 + sum(map(len, sealing.FENCE)) + 12 + 16
