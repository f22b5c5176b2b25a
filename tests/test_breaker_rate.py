"""Whether a breaker that counts failures opens, tries and closes when it should."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

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


def _failed(breaker: RateBreaker, who: str | None = None) -> bool:
    """Make a call that fails, if one may be made; return whether it opened the breaker."""
    ticket = breaker.admit(who)
    return ticket is not None and breaker.failure(ticket, who)


def _answered(breaker: RateBreaker, who: str | None = None) -> bool:
    """Make a call that is answered, if one may be made; return whether it closed the breaker."""
    ticket = breaker.admit(who)
    return ticket is not None and breaker.success(ticket)


def _open(breaker: RateBreaker) -> None:
    assert [_failed(breaker) for _ in range(5)] == [False] * 4 + [True]


def test_a_few_failures_open_it_once(breaker: RateBreaker) -> None:
    """Fewer than `least` calls tell nothing; the one that opens it says so, the next ones do not."""
    _open(breaker)
    assert breaker.state == "open"
    assert breaker.admit() is None
    assert repr(breaker) == "<RateBreaker: open>"


def test_it_is_the_share_that_counts(breaker: RateBreaker) -> None:
    """Half of the calls must fail: failures among many answers are let pass."""
    for _ in range(10):
        _answered(breaker)
    assert not any(_failed(breaker) for _ in range(9))
    assert _failed(breaker)


def test_what_is_older_than_the_window_is_forgotten(breaker: RateBreaker, clock: FakeClock) -> None:
    """Four failures, a long silence and four more are never eight, and old answers excuse no failures of now."""
    for _ in range(4):
        _failed(breaker)
    clock.advance(10)
    assert not any(_failed(breaker) for _ in range(4))
    clock.advance(10)
    for _ in range(100):
        _answered(breaker)
    clock.advance(11)
    _open(breaker)


def test_it_holds_a_few_seconds_and_no_more(breaker: RateBreaker, clock: FakeClock) -> None:
    """A day of calls leaves a window's worth of counts."""
    for _ in range(10_000):
        _answered(breaker)
        clock.advance(0.3)
    assert len(breaker._seconds) <= 11


def test_one_call_tries_and_its_success_closes_it(breaker: RateBreaker, clock: FakeClock) -> None:
    """Half-open it lets a single call through; what failed before counts no more."""
    _open(breaker)
    assert breaker.retry_after == 1.0
    clock.advance(1)
    assert (breaker.state, breaker.retry_after) == ("half-open", 0.0)
    ticket, *others = [breaker.admit() for _ in range(3)]
    assert ticket is not None
    assert others == [None, None]
    assert breaker.success(ticket)
    assert breaker.state == "closed"
    assert not _answered(breaker)
    assert [_failed(breaker) for _ in range(3)] == [False] * 3


def test_a_failed_try_opens_it_for_longer_each_time_up_to_a_bound(breaker: RateBreaker, clock: FakeClock) -> None:
    """1, 2, 4, 8, 16, 30, 30 seconds; a success brings it back to the first pause."""
    _open(breaker)
    pauses = []
    for _ in range(7):
        pauses.append(breaker.retry_after)
        clock.advance(breaker.retry_after)
        assert not _failed(breaker)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    clock.advance(30)
    assert _answered(breaker)
    _open(breaker)
    assert breaker.retry_after == 1.0


@pytest.mark.parametrize("late", ["success", "failure"])
def test_a_call_from_before_it_opened_is_not_taken_for_the_try(
    breaker: RateBreaker, clock: FakeClock, late: str
) -> None:
    """What was long on its way tells nothing of now: not while it is open, half-open or closed again."""
    before = breaker.admit()
    assert before is not None
    report = getattr(breaker, late)
    _open(breaker)
    assert not report(before)
    assert breaker.retry_after == 1.0
    clock.advance(1)
    trying = breaker.admit()
    assert trying is not None
    assert not report(before)
    assert (breaker.state, breaker.admit()) == ("half-open", None)
    assert breaker.success(trying)
    assert not any(report(before) for _ in range(10))
    assert breaker.state == "closed"


def test_one_who_fails_again_and_again_counts_once_in_a_window(breaker: RateBreaker, clock: FakeClock) -> None:
    """Whose fault may be theirs alone opens it for nobody; five of them do, and so do they with time."""
    for _ in range(20):
        assert not _failed(breaker, "ada")
        clock.advance(0.4)
    assert [_failed(breaker, who) for who in ("bob", "cy", "ada", "bob", "dan", "eve")] == [False] * 5 + [True]


def test_one_who_fails_counts_again_in_the_next_window(breaker: RateBreaker, clock: FakeClock) -> None:
    """What was known of whose calls failed is forgotten with the calls."""
    _failed(breaker, "ada")
    clock.advance(10)
    assert [_failed(breaker, who) for who in ("ada", "bob", "cy", "dan", "eve")] == [False] * 4 + [True]


def test_whose_calls_failed_is_known_of_a_bounded_number(breaker: RateBreaker) -> None:
    """Among answers without number, failures of ever new users leave no more than a thousand behind a second."""
    for _ in range(30_000):
        _answered(breaker)
    for number in range(3000):
        _failed(breaker, str(number))
    assert sum(len(second.failed_for) for second in breaker._seconds) == 1000


def test_one_whose_own_try_fails_shuts_nobody_else_out(breaker: RateBreaker, clock: FakeClock) -> None:
    """Half-open, the next one tries at once; whose try failed tries again when the window has passed."""
    _open(breaker)
    clock.advance(1)
    assert not _failed(breaker, "ada")
    assert breaker.state == "half-open"
    assert breaker.admit("ada") is None
    assert _answered(breaker, "bob")
    _open(breaker)
    clock.advance(1)
    _failed(breaker, "ada")
    clock.advance(9.9)
    assert breaker.admit("ada") is None
    clock.advance(0.1)
    assert _answered(breaker, "ada")


def test_as_many_failed_tries_as_open_it_are_not_one_users_fault(breaker: RateBreaker, clock: FakeClock) -> None:
    """A source that is down without saying so is tried by five, and then left alone for longer."""
    _open(breaker)
    clock.advance(1)
    for who in ("ada", "bob", "cy", "dan"):
        assert not _failed(breaker, who)
        assert breaker.state == "half-open"
    assert not _failed(breaker, "eve")
    assert (breaker.state, breaker.retry_after) == ("open", 2.0)
    clock.advance(10)
    assert not _failed(breaker, "ada")
    assert breaker.state == "half-open"
    assert _answered(breaker, "bob")


def test_a_try_that_never_ends_keeps_its_place_for_a_window(breaker: RateBreaker, clock: FakeClock) -> None:
    """Then another tries, and what becomes of the first counts no more."""
    _open(breaker)
    clock.advance(1)
    stuck = breaker.admit()
    assert stuck is not None
    clock.advance(9.9)
    assert breaker.admit() is None
    clock.advance(0.1)
    second = breaker.admit()
    assert second is not None
    assert not breaker.success(stuck)
    assert breaker.admit() is None
    assert breaker.success(second)


def test_a_try_of_which_nothing_will_be_known_leaves_its_place_to_another(
    breaker: RateBreaker, clock: FakeClock
) -> None:
    """Whoever made it went away: it neither closes nor opens anything."""
    _open(breaker)
    clock.advance(1)
    gone = breaker.admit()
    assert gone is not None
    breaker.abandon(gone)
    assert breaker.state == "half-open"
    ticket = breaker.admit()
    assert ticket is not None
    breaker.abandon(gone)
    assert breaker.admit() is None
    assert breaker.success(ticket)


def test_threads_take_turns(clock: FakeClock) -> None:
    """Event loops in threads share a breaker: it closes in one of them only when another has been let in, or not."""
    meanwhile: list[Callable[[], object]] = []

    def interrupted() -> float:
        while meanwhile:
            others.append(threads.submit(meanwhile.pop()))
            wait(others, timeout=0.1)
        return clock()

    others: list[Future[object]] = []
    breaker = RateBreaker(interrupted)
    with ThreadPoolExecutor(1) as threads:
        _open(breaker)
        clock.advance(1)
        trying = breaker.admit()
        assert trying is not None
        meanwhile.append(lambda: breaker.success(trying))
        assert breaker.admit() is None
        assert [other.result(30) for other in others] == [True]
    assert breaker.state == "closed"
