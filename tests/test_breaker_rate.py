"""Whether a breaker that counts failures opens, tries and closes when it should."""

from __future__ import annotations

import pytest

from ctxmiddleware.breaker import RateBreaker
from ctxmiddleware.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """Seconds that pass when a test says so."""
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> RateBreaker:
    """A breaker as it ships."""
    return RateBreaker(clock)


def _open(breaker: RateBreaker) -> None:
    assert [breaker.failure() for _ in range(5)] == [False] * 4 + [True]


def test_a_few_failures_open_it_once(breaker: RateBreaker) -> None:
    """Fewer than `least` calls tell nothing; the one that opens it says so, the next ones do not."""
    _open(breaker)
    assert breaker.state == "open"
    assert not breaker.admit()
    assert not breaker.failure()
    assert repr(breaker) == "<RateBreaker: open>"


def test_it_is_the_share_that_counts(breaker: RateBreaker) -> None:
    """Half of the calls must fail: failures among many answers are let pass."""
    for _ in range(10):
        breaker.success()
    assert not any(breaker.failure() for _ in range(9))
    assert breaker.failure()


def test_what_is_older_than_the_window_is_forgotten(breaker: RateBreaker, clock: FakeClock) -> None:
    """Four failures, a long silence and four more are never eight, and old answers excuse no failures of now."""
    for _ in range(4):
        breaker.failure()
    clock.advance(10)
    assert not any(breaker.failure() for _ in range(4))
    clock.advance(10)
    for _ in range(100):
        breaker.success()
    clock.advance(11)
    _open(breaker)


def test_it_holds_a_few_seconds_and_no_more(breaker: RateBreaker, clock: FakeClock) -> None:
    """A day of calls leaves a window's worth of counts."""
    for _ in range(10_000):
        breaker.success()
        clock.advance(0.3)
    assert len(breaker._seconds) <= 11


def test_one_call_tries_and_its_success_closes_it(breaker: RateBreaker, clock: FakeClock) -> None:
    """Half-open it lets a single call through; what failed before counts no more."""
    _open(breaker)
    assert breaker.retry_after == 1.0
    clock.advance(1)
    assert (breaker.state, breaker.retry_after) == ("half-open", 0.0)
    assert [breaker.admit() for _ in range(3)] == [True, False, False]
    assert breaker.success()
    assert breaker.state == "closed"
    assert breaker.admit()
    assert not breaker.success()
    assert [breaker.failure() for _ in range(3)] == [False] * 3


def test_a_failed_try_opens_it_for_longer_each_time_up_to_a_bound(breaker: RateBreaker, clock: FakeClock) -> None:
    """1, 2, 4, 8, 16, 30, 30 seconds; a success brings it back to the first pause."""
    _open(breaker)
    pauses = []
    for _ in range(7):
        pauses.append(breaker.retry_after)
        clock.advance(breaker.retry_after)
        assert breaker.admit()
        assert not breaker.failure()
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    clock.advance(30)
    breaker.admit()
    breaker.success()
    _open(breaker)
    assert breaker.retry_after == 1.0


def test_a_call_from_before_it_opened_neither_closes_it_nor_tries_in_anothers_place(
    breaker: RateBreaker, clock: FakeClock
) -> None:
    """An answer that was long on its way tells nothing of now."""
    _open(breaker)
    assert not breaker.success()
    assert not breaker.failure()
    assert breaker.state == "open"
    clock.advance(1)
    assert not breaker.success()
    assert breaker.admit()


def test_one_who_fails_again_and_again_counts_once_in_a_window(breaker: RateBreaker, clock: FakeClock) -> None:
    """Whose fault may be theirs alone opens it for nobody; five of them do, and so do they with time."""
    for _ in range(20):
        assert not breaker.failure("ada")
        clock.advance(0.4)
    assert [breaker.failure(who) for who in ("bob", "cy", "ada", "bob", "dan", "eve")] == [False] * 5 + [True]


def test_one_who_fails_counts_again_in_the_next_window(breaker: RateBreaker, clock: FakeClock) -> None:
    """What was known of whose calls failed is forgotten with the calls."""
    breaker.failure("ada")
    clock.advance(10)
    assert [breaker.failure(who) for who in ("ada", "bob", "cy", "dan", "eve")] == [False] * 4 + [True]


def test_whose_calls_failed_is_known_of_a_bounded_number(breaker: RateBreaker) -> None:
    """Among answers without number, failures of ever new users leave no more than a thousand behind a second."""
    for _ in range(30_000):
        breaker.success()
    for number in range(3000):
        breaker.failure(str(number))
    assert sum(len(second.failed_for) for second in breaker._seconds) == 1000


def test_a_failed_try_opens_it_again_whoever_it_was_for(breaker: RateBreaker, clock: FakeClock) -> None:
    """Half-open, the one call that tries must not be waited for for ever."""
    breaker.failure("ada")
    _open_further(breaker)
    clock.advance(1)
    assert breaker.admit()
    breaker.failure("ada")
    assert breaker.retry_after == 2.0


def _open_further(breaker: RateBreaker) -> None:
    assert [breaker.failure() for _ in range(4)] == [False] * 3 + [True]
