"""Whether the judge of a history finds what must not have happened, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from .history import Block, Commit, History, Load, Read, Span
from .run import Outcome

OLD, NEW = 1, 2


def _history(settle: float = 5.0, lag: float = 0.0) -> History:
    """Return a history with COMMIT of the new version from 10 to 11."""
    return History(settle, lag, OLD, commits=[Commit(10, 11, NEW)])


def _read(at: float, version: int, instance: int = 0) -> Read:
    return Read(at, at + 0.1, instance, version)


def test_an_answer_is_as_new_as_what_was_committed_before_the_invalidation_began() -> None:
    """And the same answer is allowed before the invalidation has returned."""
    history = _history()
    history.invalidations.append(Span(12, 13))
    history.reads = [_read(12.5, OLD), _read(13, NEW)]
    assert history.faults() == []
    history.reads = [_read(13, OLD)]
    assert len(history.faults()) == 1


def test_an_invalidation_before_the_commit_counts_once_settle_is_over() -> None:
    """Not before, and not where the COMMIT came later than that."""
    history = _history()
    history.invalidations.append(Span(8, 9))
    history.reads = [_read(13.9, OLD), _read(14, NEW)]
    assert (history.faults(), history.settled()) == ([], 1)
    history.reads = [_read(14, OLD)]
    assert len(history.faults()) == 1
    history.invalidations = [Span(5.9, 6)]
    assert history.faults() == []


def test_the_time_counts_from_the_last_invalidation() -> None:
    """A value loaded after the later one is served until its time is over, too."""
    history = _history()
    history.invalidations += [Span(8, 9), Span(9.5, 9.6)]
    history.reads = [_read(14.5, OLD)]
    assert history.faults() == []
    history.reads = [_read(14.6, OLD)]
    assert len(history.faults()) == 1


def test_an_invalidation_of_no_earlier_time_changes_nothing() -> None:
    """It began after the time of the first was over, which holds."""
    history = _history()
    history.invalidations += [Span(8, 9), Span(14.5, 14.6)]
    history.reads = [_read(15, OLD)]
    assert len(history.faults()) == 1


def test_the_exit_of_a_block_covers_what_was_committed_in_it() -> None:
    """At once, whatever `settle` is."""
    history = _history(settle=0)
    history.blocks.append(Block(Span(1, 2), Span(12, 13)))
    history.reads = [_read(13, OLD)]
    assert len(history.faults()) == 1


def test_in_a_block_answers_come_from_loads_that_were_under_way() -> None:
    """In the same instance; a load that had ended before was kept."""
    history = _history()
    history.blocks.append(Block(Span(1, 2), Span(20, 21)))
    history.loads.append(Load(8.0, 8.5, 0, OLD))
    history.reads = [_read(8.2, OLD)]
    assert history.faults() == []
    history.reads = [Read(8.6, 8.7, 0, OLD)]
    assert len(history.faults()) == 1
    history.reads = [_read(8.2, OLD, instance=1)]
    assert len(history.faults()) == 1


def test_a_load_is_under_way_until_its_callers_have_their_answer() -> None:
    """Steps after the call of the source belong to it."""
    history = _history()
    history.blocks.append(Block(Span(1, 2), Span(20, 21)))
    history.loads.append(Load(8.0, 8.5, 0, OLD))
    history.reads = [Read(7.9, 9, 0, OLD), Read(8.6, 9, 0, OLD)]
    assert history.faults() == []


@pytest.mark.parametrize(("read", "count"), [(_read(9, NEW), 1), (_read(10.5, NEW), 0), (_read(12, 3), 1)])
def test_an_answer_was_committed(read: Read, count: int) -> None:
    """A version that was rolled back, or is not committed yet, is in no answer."""
    history = _history()
    history.reads.append(read)
    assert len(history.faults()) == count


@pytest.mark.parametrize(("began", "is_late"), [(12.9, False), (13.1, True)])
def test_a_standby_that_is_too_late_is_known(began: float, *, is_late: bool) -> None:
    """A load from it that lacks what was committed longer ago than the lag."""
    history = _history(lag=2)
    history.loads.append(Load(began, began + 0.1, 0, OLD, from_standby=True))
    assert history.overtaxed() is is_late


def test_an_answer_after_an_unconfirmed_invalidation_is_not_judged() -> None:
    """The report allows an instance that has not confirmed to serve older answers."""
    history = _history()
    history.invalidations.append(Span(12, 13))
    history.reads = [_read(13, OLD)]
    story: Any = SimpleNamespace(history=history, user="ada", unavailable=0)
    outcome = Outcome()
    outcome.add(story)
    assert len(outcome.broken) == outcome.counts["faults"] == 1
    history.unconfirmed = 1
    outcome = Outcome()
    outcome.add(story)
    assert (outcome.broken, outcome.counts["faults"]) == ([], 0)
