"""What a flood of identities that nobody knows does to those who are real: nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ..matrix import Cases
from . import flood
from .flood import Found

# Trusted for longer than a flood takes, so that only what was put out of memory is looked up anew; and no more than two
# calls, however slow they are.
POLICY = replace(flood.POLICY, max_users=200, max_unknown=100, max_loads=2, untrusted_ttl=600.0, settle=0.0)


@pytest.fixture(scope="module")
def forged(cases: Cases) -> int:
    """How many forged requests a flood has."""
    return 10_000 if cases is Cases.FULL else 3_000


@pytest.fixture(scope="module")
def found(forged: int) -> Found:
    """A flood of thousands, through an app whose memory is full of two hundred real users, over a real Redis."""
    return flood.measure(forged, policy=POLICY)


def test_real_users_keep_their_places(found: Found, forged: int) -> None:
    """Memory answers every one of their requests: nobody who is known was evicted, and nobody loaded again."""
    assert found.real == forged // flood.REAL_EVERY
    assert found.hits == found.real
    assert found.source.real == 0


def test_memory_stays_within_its_bounds(found: Found) -> None:
    """In number, known and unknown apart, and in bytes."""
    assert POLICY.max_users < found.most_users <= POLICY.max_users + POLICY.max_unknown
    assert 0 < found.most_bytes <= POLICY.max_bytes


def test_the_source_is_asked_no_more_than_it_may_be(found: Found, forged: int) -> None:
    """Each forged name at most once, a hundred of them to a call, two calls at a time."""
    assert found.statuses == {403: forged}
    assert found.source.forged == forged
    assert found.source.most <= POLICY.max_batches
    assert found.source.calls < forged / 20


def test_with_bytes_as_the_limit_real_users_keep_them(forged: int) -> None:
    """However little room there is, a sixteenth of it is the most that unknown names take from the known."""
    policy = replace(POLICY, max_bytes=300_000, max_unknown=1_000_000)
    found = flood.measure(forged // 3, policy=policy)
    assert found.most_bytes <= policy.max_bytes
    assert found.hits >= 0.95 * found.real


def test_a_source_that_cannot_keep_up_is_not_flooded_and_real_users_do_not_notice(forged: int) -> None:
    """More ask than may wait: the rest is refused at once with a 503, and memory goes on answering the real ones."""
    policy = replace(POLICY, max_waiting=250)
    found = flood.measure(forged // 3, policy=policy, seconds=0.05, held_until=503)
    assert set(found.statuses) == {403, 503}
    assert found.source.most <= policy.max_batches
    assert found.hits == found.real
