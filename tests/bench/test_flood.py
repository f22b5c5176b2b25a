"""What a flood of identities that nobody knows does to those who are real: nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from . import flood
from .flood import Found

FORGED = 10_000
POLICY = replace(flood.POLICY, max_users=200, max_unknown=100)


@pytest.fixture(scope="module")
def found() -> Found:
    """A flood of ten thousand, through an app whose memory is full of two hundred real users, over a real Redis."""
    return flood.measure(FORGED, policy=POLICY)


def test_real_users_keep_their_places(found: Found) -> None:
    """Memory answers every one of their requests: nobody who is known was evicted, and nobody loaded again."""
    assert found.real == FORGED // flood.REAL_EVERY
    assert found.hits == found.real
    assert found.source.real == 0


def test_memory_stays_within_its_bounds(found: Found) -> None:
    """In number, known and unknown apart, and in bytes."""
    assert POLICY.max_users < found.most_users <= POLICY.max_users + POLICY.max_unknown
    assert 0 < found.most_bytes <= POLICY.max_bytes


def test_the_source_is_asked_no_more_than_it_may_be(found: Found) -> None:
    """Each forged name at most once, a hundred of them to a call, two calls at a time."""
    assert found.statuses == {403: FORGED}
    assert found.source.forged == FORGED
    assert found.source.most <= POLICY.max_batches
    assert found.source.calls < FORGED / 20


def test_with_bytes_as_the_limit_real_users_keep_them() -> None:
    """However little room there is, a sixteenth of it is the most that unknown names take from the known."""
    policy = replace(POLICY, max_bytes=300_000, max_unknown=1_000_000)
    found = flood.measure(3_000, policy=policy)
    assert found.most_bytes <= policy.max_bytes
    assert found.hits >= 0.95 * found.real


def test_a_source_that_cannot_keep_up_is_not_flooded_and_real_users_do_not_notice() -> None:
    """More ask than may wait: the rest is refused at once with a 503, and memory goes on answering the real ones."""
    policy = replace(POLICY, max_waiting=250)
    found = flood.measure(3_000, policy=policy, seconds=0.05)
    assert set(found.statuses) == {403, 503}
    assert found.source.most <= policy.max_batches
    assert found.hits == found.real
