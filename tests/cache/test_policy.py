"""Whether each verdict falls at the second it should."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ctxmiddleware.cache.base import Entry, Fence
from ctxmiddleware.cache.policy import LONGEST, LONGEST_SETTLE, CachePolicy, Verdict, judge, stale_until
from ctxmiddleware.cache.trust import Trust
from ctxmiddleware.errors import ConfigurationError

POLICY = CachePolicy(ttl=900, negative_ttl=60, stale_for=300, untrusted_ttl=5, jitter=0.1, refresh_ahead=0.8)
UNHEARD = Trust(5)


def _entry(value: str | None = "v", *, lifetime: float = 900, shared: bool = False, age: float = 0) -> Entry[str]:
    return POLICY.entry(value, "db", 1000.0, lifetime, shared=shared, fence=Fence(b"e", b"n"), age=age)


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (1000, Verdict.FRESH),
        (1719.9, Verdict.FRESH),
        (1720, Verdict.AHEAD),
        (1899.9, Verdict.AHEAD),
        (1900, Verdict.STALE),
        (2199.9, Verdict.STALE),
        (2200, Verdict.GONE),
    ],
)
def test_memory_alone_is_trusted_for_its_time(now: float, verdict: Verdict) -> None:
    """Without a shared tier a value is fresh, refreshed behind late in its time, stale for its grace, then gone."""
    assert judge(_entry(), now, UNHEARD) is verdict


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (1003.9, Verdict.FRESH),
        (1004, Verdict.AHEAD),
        (1004.9, Verdict.AHEAD),
        (1005, Verdict.STALE),
        (1304.9, Verdict.STALE),
        (1305, Verdict.GONE),
        (1900, Verdict.GONE),
    ],
)
def test_beside_a_shared_tier_trust_ends_first(now: float, verdict: Verdict) -> None:
    """Beside Redis a value is not served by itself after `untrusted_ttl`, and its grace counts from there."""
    assert judge(_entry(shared=True), now, UNHEARD) is verdict


def test_confirmed_it_is_trusted_again_but_not_for_longer_than_its_time() -> None:
    """Unchanged generations renew trust; they never lengthen the time to live."""
    renewed = POLICY.confirmed(_entry(shared=True), 1898.0)
    assert (renewed.trusted_until, renewed.expires_at, stale_until(renewed, UNHEARD)) == (1903.0, 1900.0, 2200.0)
    assert (judge(renewed, 1899.9, UNHEARD), judge(renewed, 1900, UNHEARD)) == (Verdict.AHEAD, Verdict.STALE)


@pytest.mark.parametrize("lifetime", [0.0, 0.001, 900, LONGEST])
def test_a_share_of_one_refreshes_nothing_ahead(lifetime: float) -> None:
    """With `refresh_ahead=1` a value is fresh to its last moment."""
    entry = CachePolicy(refresh_ahead=1).entry("v", "db", 1000.0, lifetime, shared=False)
    assert entry.ahead_at == entry.expires_at == 1000.0 + lifetime


def test_what_the_fleet_has_loaded_again_is_not_due() -> None:
    """A value is due by when its source was asked, not by when this process heard of it."""
    assert [POLICY.is_due(_entry(shared=True, age=age), 1000.0) for age in (0, 719, 720, 900)] == [
        False,
        False,
        True,
        True,
    ]
    assert not POLICY.is_due(_entry(None, lifetime=60, age=59), 1000.0)


@pytest.mark.parametrize(("scatter", "expected"), [(0.0, 900), (0.5, 855), (1.0, 810)])
def test_times_are_scattered_downwards_only(scatter: float, expected: float) -> None:
    """Jitter takes a share away and never adds one; what the source itself said is left as it is."""
    assert POLICY.lifetime(known=True, scatter=scatter) == pytest.approx(expected)
    assert POLICY.lifetime(known=False, scatter=scatter) == pytest.approx(expected / 15)
    assert POLICY.lifetime(known=True, ttl=7.5, scatter=scatter) == 7.5


def test_an_unknown_user_is_never_served_past_its_time() -> None:
    """Nothing stands in for an unknown user: there is nothing to serve."""
    unknown = _entry(None, lifetime=60)
    assert judge(unknown, 1059.9, UNHEARD) is Verdict.FRESH
    assert judge(unknown, 1060, UNHEARD) is Verdict.GONE


def test_the_age_in_the_shared_tier_counts() -> None:
    """A value that was 100 s old when Redis gave it has 800 s of 900 left, and says when its source was asked."""
    old = _entry(shared=True, age=100)
    assert (old.loaded_at, old.expires_at, old.trusted_until) == (900.0, 1800.0, 1005.0)


@pytest.mark.parametrize(
    ("known", "ttl", "expected"),
    [
        (True, None, 900),
        (False, None, 60),
        (True, 7.5, 7.5),
        (False, 7.5, 7.5),
        (True, 0, 0),
        (True, -3.0, 0),
        (True, math.nan, 0),
        (True, math.inf, LONGEST),
        (True, 1e300, LONGEST),
    ],
)
def test_the_source_s_own_time_wins_within_reason(*, known: bool, ttl: float | None, expected: float) -> None:
    """A source may shorten and lengthen; one whose time has passed already never gets the policy's instead."""
    assert POLICY.lifetime(known=known, ttl=ttl) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ttl", 0),
        ("ttl", -1),
        ("ttl", math.nan),
        ("ttl", math.inf),
        ("ttl", 1e20),
        ("negative_ttl", 0),
        ("untrusted_ttl", -0.1),
        ("load_timeout", 0),
        ("stale_for", -1),
        ("stale_for", math.nan),
        ("stale_for", 1e20),
        ("soft_timeout", 0),
        ("jitter", -0.1),
        ("jitter", 1),
        ("jitter", math.nan),
        ("refresh_ahead", 0),
        ("refresh_ahead", 1.1),
        ("refresh_ahead", math.nan),
        ("max_loads", 0),
        ("max_batches", 0),
        ("max_waiting", 0),
        ("max_users", 0),
        ("max_unknown", 0),
        ("max_bytes", -5),
        ("max_users", 1.5),
        ("max_users", math.inf),
        ("max_loads", True),
        ("stale_for", None),
    ],
)
def test_a_value_out_of_range_is_named(field: str, value: float) -> None:
    """A policy that cannot be says which value it was given and what is allowed."""
    with pytest.raises(ConfigurationError, match=rf"CachePolicy\.{field} was .*must be"):
        CachePolicy(**{field: value})  # type: ignore[arg-type]  # one of several types, by name


def test_all_faults_are_told_at_once() -> None:
    """Whoever got three values wrong reads of all three."""
    with pytest.raises(ConfigurationError) as told:
        CachePolicy(ttl=0, stale_for=-1, max_users=0)
    assert len(told.value.faults) == 3
    CachePolicy(stale_for=0)


@pytest.mark.parametrize("value", ["15m", None, True, [900]])
def test_a_time_that_is_no_number_is_a_configuration_error(value: Any) -> None:
    """It names the field and what it was."""
    with pytest.raises(ConfigurationError, match=r"CachePolicy\.ttl was .*, must be a number of seconds"):
        CachePolicy(ttl=value)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("settle", [0, LONGEST_SETTLE], [-1, LONGEST_SETTLE + 1, math.nan]),
        ("warm_users", [0, 1], [-1]),
        ("jitter", [0, 0.99], [-0.1, 1, math.nan]),
        ("refresh_ahead", [0.01, 1], [0, 1.1, math.nan]),
    ],
)
def test_the_ends_of_each_range_are_in_it(name: str, good: list[float], bad: list[float]) -> None:
    """And what is past them is refused by its name."""
    for value in good:
        given: dict[str, Any] = {name: value}
        assert getattr(CachePolicy(**given), name) == value
    for value in bad:
        given = {name: value}
        with pytest.raises(ConfigurationError, match=f"CachePolicy.{name} was {value!r}"):
            CachePolicy(**given)
