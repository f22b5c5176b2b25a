"""Whether the breaker opens and closes when it should and says so once."""

from __future__ import annotations

from ctxmiddleware.breaker import Breaker


def test_opens_after_so_many_faults_in_a_row_and_says_so_once() -> None:
    """The fault that opens it is told apart from those before and after."""
    breaker = Breaker(3)
    assert [breaker.fault() for _ in range(5)] == [False, False, True, False, False]
    assert breaker.is_open
    assert repr(breaker) == "<Breaker: open, 5 faults in a row>"


def test_a_success_between_faults_starts_the_count_again() -> None:
    """Faults that are not in a row open nothing."""
    breaker = Breaker(2)
    assert not breaker.fault()
    assert not breaker.success()
    assert not breaker.fault()
    assert not breaker.is_open
    assert repr(breaker) == "<Breaker: closed, 1 faults in a row>"


def test_the_success_that_closes_it_says_so_once() -> None:
    """Whoever reports the first success is told that it closed the breaker; the second is told nothing."""
    breaker = Breaker(1)
    assert breaker.fault()
    assert [breaker.success(), breaker.success()] == [True, False]
    assert not breaker.is_open
    assert breaker.fault()
