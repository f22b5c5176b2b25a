"""Whether the checker tells a mix-up, an answer that is too old and a legitimate stale one apart."""

from __future__ import annotations

import dataclasses

import pytest

from .company import Standing, facts
from .history import AFTERMATH, Asked, History, Invalidated, Told, Verdict

ANN, BOB = 3, 5
OURS, THEIRS = 100, 200
SLOT = 1


def made_up(*, channel: bool = False, confirmed: int = THEIRS, returned_at: float = 10.0) -> History:
    """Return a history in which both users were changed to version 2, and Ann's was invalidated at 10 s."""
    history = History(untrusted_ttl=2.0, stale_for=8.0, channel=channel)
    for user in (ANN, BOB, ANN, BOB):
        history.changing(user)
        history.changed(user)
    history.invalidated(Invalidated(history.committed([ANN]), returned_at - 0.1, returned_at, frozenset({confirmed})))
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
    history.changing(ANN)
    assert history.judge(asked(30.0), told(3)) is Verdict.RIGHT


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


def test_an_instance_that_was_not_told_may_lag_for_as_long_as_memory_is_trusted() -> None:
    """Before the invalidation, and for untrusted_ttl after it; then it is too old."""
    history = made_up()
    assert history.judge(asked(9.9), told(0)) is Verdict.RIGHT
    assert history.judge(asked(11.9), told(1)) is Verdict.LAGGING
    assert history.judge(asked(12.1), told(1)) is Verdict.TOO_OLD


def test_the_instance_that_confirmed_may_not_lag() -> None:
    """One that said that it has forgotten is held to it at once."""
    history = made_up(confirmed=OURS)
    assert history.judge(asked(10.1), told(1)) is Verdict.TOO_OLD
    assert history.judge(asked(10.1), told(2)) is Verdict.RIGHT


def test_a_process_that_began_afterwards_may_not_lag() -> None:
    """It had nothing in its memory that could be older."""
    history = made_up()
    history.started(OURS, 10.5)
    assert history.judge(asked(11.0), told(1)) is Verdict.TOO_OLD
    history.started(OURS, 9.5)
    assert history.judge(asked(11.0), told(1)) is Verdict.LAGGING


def test_with_a_channel_only_a_disturbed_instance_may_lag() -> None:
    """Cut off from Redis, or stopped, it may be as old as before; for some time after that too."""
    history = made_up(channel=True)
    assert history.judge(asked(10.1), told(1)) is Verdict.TOO_OLD
    stretch = history.disturbed("redis", [SLOT], 8.0)
    history.recovered(stretch, 9.0)
    assert history.judge(asked(11.9), told(1)) is Verdict.LAGGING
    assert history.judge(asked(12.1), told(1)) is Verdict.TOO_OLD
    later = made_up(channel=True, returned_at=9.0 + AFTERMATH + 1.0)
    later.recovered(later.disturbed("redis", [SLOT], 8.0), 9.0)
    assert later.judge(asked(9.0 + AFTERMATH + 1.1), told(1)) is Verdict.TOO_OLD


@pytest.mark.parametrize(
    ("parts", "stale", "verdict"),
    [
        (("redis", "source"), True, Verdict.STALE),
        (("process", "source"), True, Verdict.STALE),
        (("redis", "source"), False, Verdict.TOO_OLD),
        (("source",), True, Verdict.TOO_OLD),
        (("redis",), True, Verdict.TOO_OLD),
    ],
)
def test_stale_is_right_only_marked_and_while_both_are_cut_off(
    parts: tuple[str, ...], *, stale: bool, verdict: Verdict
) -> None:
    """Older than untrusted_ttl needs the mark, no Redis and no source; past stale_for nothing helps."""
    history = made_up()
    for part in parts:
        history.disturbed(part, [SLOT], 9.0)  # type: ignore[arg-type]  # a parameter of the test
    assert history.judge(asked(15.0), told(1, stale=stale, at=15.1)) is verdict
    assert history.judge(asked(20.1), told(1, stale=stale, at=20.2)) is Verdict.TOO_OLD


def test_a_fault_of_another_place_excuses_nothing() -> None:
    """What cuts one instance off says nothing about the others."""
    history = made_up()
    history.disturbed("redis", [SLOT + 1], 9.0)
    history.disturbed("source", [SLOT + 1], 9.0)
    assert history.judge(asked(15.0), told(1, stale=True, at=15.1)) is Verdict.TOO_OLD


def test_who_is_gone_is_judged_by_the_newest_version_that_had_them_gone() -> None:
    """An unknown user shows no version: right while the absence is the newest, too old once a return is final."""
    history = History(untrusted_ttl=2.0, stale_for=8.0, channel=False)
    unknown = Told(30.0, OURS, Standing.ABSENT, None, None)
    for _ in range(7):
        history.changing(ANN)
        history.changed(ANN)
    history.invalidated(Invalidated(history.committed([ANN]), 9.9, 10.0, frozenset()))
    assert history.judge(asked(20.0), unknown) is Verdict.RIGHT
    assert history.judge(asked(20.0), told(6)) is Verdict.TOO_OLD
    history.changing(ANN)
    history.changed(ANN)
    history.invalidated(Invalidated(history.committed([ANN]), 20.9, 21.0, frozenset()))
    assert history.judge(asked(22.0), unknown) is Verdict.LAGGING
    assert history.judge(asked(23.1), unknown) is Verdict.TOO_OLD


def test_a_slow_invalidation_that_began_earlier_takes_nothing_back() -> None:
    """What is final stays final, in whatever order invalidations return."""
    history = made_up()
    history.invalidated(Invalidated({ANN: 1}, 5.0, 11.0, frozenset()))
    assert history.judge(asked(14.0), told(1)) is Verdict.TOO_OLD


def test_clear_is_an_invalidation_of_everybody() -> None:
    """Its versions are those that were committed before it began."""
    history = made_up()
    history.invalidated(Invalidated(history.committed([ANN, BOB]), 19.9, 20.0, frozenset({OURS})))
    assert history.judge(asked(20.1, BOB), told(1, of=BOB)) is Verdict.TOO_OLD
    assert history.judge(asked(20.1, BOB), told(2, of=BOB)) is Verdict.RIGHT
