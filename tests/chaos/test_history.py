"""The checker distinguishes a mix-up, an answer that is too old, and one that lags as the report said."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from .company import Standing, facts
from .history import AFTERMATH, Asked, History, Invalidated, Told, Verdict

ANN, BOB = 3, 5
OURS, THEIRS = 100, 200
SLOT = 1


def made_up(**report: Any) -> History:
    """Return a history in which both users were changed to version 2, and Ann's was invalidated at 10 s.

    Args:
        report: what the report said; without it that our process stops within 6 s.
    """
    history = History(untrusted_ttl=2.0)
    for user in (ANN, BOB, ANN, BOB):
        history.changing(user)
        history.changed(user)
    history.invalidated(Invalidated(history.committed([ANN]), 10.0, **(report or {"silent": {OURS: 6.0}})))
    return history


def asked(at: float, user: int = ANN) -> Asked:
    """Return a request."""
    return Asked(user, SLOT, at)


def told(version: int, *, of: int = ANN, stale: bool = False, at: float = 30.0) -> Told:
    """Return an answer of our process, with what is true of a user."""
    return Told(at, OURS, Standing.ACTIVE, version, facts(of), stale=stale)


def test_what_was_invalidated_last_is_right_at_any_time() -> None:
    """The newest version is right everywhere, marked stale or not, and so is one that is not invalidated yet."""
    history = made_up()
    assert history.judge(asked(30.0), told(2)) is Verdict.RIGHT
    assert history.judge(asked(30.0), told(2, stale=True)) is Verdict.RIGHT
    assert history.judge(asked(30.0, BOB), told(0, of=BOB)) is Verdict.RIGHT
    history.changing(ANN, 25.0)
    assert history.judge(asked(30.0), told(3)) is Verdict.RIGHT
    assert history.judge(asked(24.0), told(3, at=24.9)) is Verdict.MIX_UP


@pytest.mark.parametrize(
    "other",
    [
        told(2, of=BOB),
        told(3),
        Told(30.0, OURS, Standing.ACTIVE, None, facts(ANN)),
        Told(30.0, OURS, Standing.INACTIVE, 2, facts(ANN)),
        Told(30.0, OURS, Standing.ABSENT, None, None),
        Told(30.0, OURS, Standing.ACTIVE, 2, dataclasses.replace(facts(ANN), slots=facts(BOB).slots)),
        Told(30.0, OURS, Standing.ACTIVE, 2, dataclasses.replace(facts(ANN), email=facts(BOB).email)),
    ],
    ids=["another's", "a version to come", "no version", "barred", "unknown", "another's slots", "another's address"],
)
def test_what_never_stood_in_the_users_row_is_a_mix_up(other: Told) -> None:
    """Another's facts, in whole or in part, a version nobody wrote, and a standing no version gave."""
    assert made_up().judge(asked(30.0), other) is Verdict.MIX_UP


@pytest.mark.parametrize(
    "report", [{"silent": {OURS: 6.0}}, {"unlisted": 6.0}, {"silent": {THEIRS: 1.0}, "unlisted": 6.0}]
)
def test_a_process_may_lag_until_the_second_that_the_report_says(report: dict[str, Any]) -> None:
    """Before the invalidation, for untrusted_ttl after it, and marked stale until its bound; then it is too old."""
    history = made_up(**report)
    assert history.judge(asked(9.9), told(0)) is Verdict.RIGHT
    assert history.judge(asked(11.9), told(1)) is Verdict.LAGGING
    assert history.judge(asked(11.9), told(1, stale=True)) is Verdict.LAGGING
    assert history.judge(asked(12.1), told(1, stale=True)) is Verdict.STALE
    assert history.judge(asked(15.9), told(1, stale=True)) is Verdict.STALE
    assert history.judge(asked(16.0), told(1, stale=True)) is Verdict.TOO_OLD


def test_past_untrusted_ttl_an_answer_that_lags_is_marked_stale() -> None:
    """Memory is trusted no longer, whatever the report says of how long it may stand in for the source."""
    assert made_up().judge(asked(12.0), told(1)) is Verdict.TOO_OLD


@pytest.mark.parametrize("unlisted", [0.0, 6.0])
def test_a_bound_below_untrusted_ttl_holds_for_every_answer(unlisted: float) -> None:
    """A listed instance without a recent beat may serve for less time than trust lasts."""
    history = made_up(silent={OURS: 0.5}, unlisted=unlisted)
    assert history.judge(asked(10.4), told(1)) is Verdict.LAGGING
    assert history.judge(asked(10.5), told(1)) is Verdict.TOO_OLD
    assert history.judge(asked(10.5), told(1, stale=True)) is Verdict.TOO_OLD


@pytest.mark.parametrize(
    "report",
    [
        {"confirmed": frozenset({OURS})},
        {"confirmed": frozenset({OURS}), "unlisted": 6.0},
        {"confirmed": frozenset({OURS}), "silent": {THEIRS: 6.0}},
        {"silent": {THEIRS: 6.0}},
        {"confirmed": frozenset({THEIRS})},
    ],
    ids=["confirmed", "confirmed, of a young list", "confirmed beside another", "another silent", "in no list"],
)
@pytest.mark.parametrize("stale", [False, True])
def test_a_process_of_which_the_report_says_nothing_may_not_lag(report: dict[str, Any], *, stale: bool) -> None:
    """One that said that it has forgotten, and one that the report does not know of where none can be missing."""
    history = made_up(**report)
    assert history.judge(asked(10.0), told(1, stale=stale)) is Verdict.TOO_OLD
    assert history.judge(asked(9.9), told(1, stale=stale)) is Verdict.RIGHT
    assert history.judge(asked(10.0), told(2, stale=stale)) is Verdict.RIGHT


@pytest.mark.parametrize("report", [{"silent": {OURS: 6.0}}, {"unlisted": 6.0}])
def test_a_process_that_began_afterwards_may_not_lag(report: dict[str, Any]) -> None:
    """It had nothing in its memory that could be older."""
    history = made_up(**report)
    history.started(OURS, 10.0)
    assert history.judge(asked(11.0), told(1)) is Verdict.TOO_OLD
    history.started(OURS, 9.5)
    assert history.judge(asked(11.0), told(1)) is Verdict.LAGGING


def test_what_failed_excuses_nothing() -> None:
    """An instance that is cut off from everything is held to what the report said of it."""
    history = made_up(confirmed=frozenset({OURS}))
    for part in ("redis", "source", "process"):
        history.disturbed(part, [SLOT], 9.0)
    assert history.judge(asked(10.1), told(1, stale=True)) is Verdict.TOO_OLD


def test_each_report_is_held_to_by_itself() -> None:
    """An invalidation that says of a process that it may lag takes nothing back of an earlier one that it confirmed."""
    history = made_up(confirmed=frozenset({OURS}))
    history.changing(ANN)
    history.changed(ANN)
    history.invalidated(Invalidated(history.committed([ANN]), 11.0, silent={OURS: 6.0}))
    assert history.judge(asked(11.5), told(2)) is Verdict.LAGGING
    assert history.judge(asked(11.5), told(1)) is Verdict.TOO_OLD


def test_a_fault_is_felt_in_its_place_and_for_some_time_after_it() -> None:
    """Faults that lose connections, and answers without a call of the source."""
    history = made_up()
    history.recovered(history.disturbed("process", [SLOT], 8.0), 9.0)
    assert history.was_disturbed(["process"], SLOT, 8.5, 8.6)
    assert history.was_disturbed(["process"], SLOT, 9.0 + AFTERMATH, 99.0)
    assert not history.was_disturbed(["process"], SLOT, 9.1 + AFTERMATH, 99.0)
    assert not history.was_disturbed(["process"], SLOT, 7.0, 7.9)
    assert not history.was_disturbed(["process"], SLOT + 1, 8.5, 8.6)
    assert not history.was_disturbed(["redis", "source"], SLOT, 8.5, 8.6)


def test_who_is_gone_is_judged_by_the_newest_version_that_had_them_gone() -> None:
    """An unknown user shows no version: right while the absence is the newest, too old once a return is final."""
    history = History(untrusted_ttl=2.0)
    unknown = Told(30.0, OURS, Standing.ABSENT, None, None)
    for _ in range(7):
        history.changing(ANN)
        history.changed(ANN)
    history.invalidated(Invalidated(history.committed([ANN]), 10.0, unlisted=2.0))
    assert history.judge(asked(20.0), unknown) is Verdict.RIGHT
    assert history.judge(asked(20.0), told(6)) is Verdict.TOO_OLD
    history.changing(ANN)
    history.changed(ANN)
    history.invalidated(Invalidated(history.committed([ANN]), 21.0, unlisted=2.0))
    assert history.judge(asked(22.0), unknown) is Verdict.LAGGING
    assert history.judge(asked(23.1), unknown) is Verdict.TOO_OLD


def test_a_slow_invalidation_that_began_earlier_takes_nothing_back() -> None:
    """What is final stays final, in whatever order invalidations return."""
    history = made_up(confirmed=frozenset({OURS}))
    history.invalidated(Invalidated({ANN: 1}, 11.0, silent={OURS: 6.0}))
    assert history.judge(asked(14.0), told(1, stale=True)) is Verdict.TOO_OLD
    history.invalidated(Invalidated({ANN: 0}, 12.0, frozenset({OURS})))
    assert history.judge(asked(14.0), told(1, stale=True)) is Verdict.TOO_OLD


def test_clear_is_an_invalidation_of_everybody() -> None:
    """Its versions are those that were committed before it began."""
    history = made_up()
    history.invalidated(Invalidated(history.committed([ANN, BOB]), 20.0, frozenset({OURS})))
    assert history.judge(asked(20.1, BOB), told(1, of=BOB)) is Verdict.TOO_OLD
    assert history.judge(asked(20.1, BOB), told(2, of=BOB)) is Verdict.RIGHT
