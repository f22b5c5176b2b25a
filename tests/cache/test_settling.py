"""Whether what is loaded soon after an invalidation is kept past the time in which its transaction may commit."""

from __future__ import annotations

import math

import pytest

from ctxmiddleware.cache import settling
from ctxmiddleware.cache.base import HELD, UNBOUNDED, Fence, Window, Windows, end_of
from ctxmiddleware.cache.names import digest_of
from ctxmiddleware.cache.policy import CachePolicy
from ctxmiddleware.cache.settling import MOMENTS, Settling
from ctxmiddleware.cache.shared import Look
from ctxmiddleware.cache.tiered import TieredCache
from ctxmiddleware.stats import Counters
from ctxmiddleware.testing import FakeClock
from tests.cache.rig import Database

FENCE = Fence(b"e", b"n")
SETTLE = 4.0


def made(settle: float = SETTLE) -> tuple[Settling, FakeClock]:
    """Return what a process knows, and its clock."""
    clock = FakeClock()
    return Settling(settle, 100.0, clock), clock


def windows(one: Settling, clock: FakeClock, name: str = "ada", look: Look[str] | None = None) -> Windows:
    """Return a name's window, in seconds from now, after a look that has taken half a second."""
    found = one.windows(name, look, (clock() - 0.5, clock()))
    return found if found is HELD else tuple(Window(*(end - clock() for end in each)) for each in found)


def window(one: Settling, clock: FakeClock, name: str = "ada", look: Look[str] | None = None) -> Window:
    """Return the window of the name itself, or of all names where that is the only one."""
    found = windows(one, clock, name, look)
    return found[1] if len(found) > 1 and math.isfinite(found[1].latest) else found[0]


def test_nothing_settles_where_nothing_was_invalidated() -> None:
    """A load with no invalidation behind it is kept as usual."""
    one, clock = made()
    assert windows(one, clock) == windows(one, clock, look=Look(FENCE, None)) == UNBOUNDED


def test_an_announced_invalidation_opens_a_window() -> None:
    """It is of its name alone, and ends."""
    one, clock = made()
    one.hear(digest_of("ada"))
    clock.advance(1)
    assert window(one, clock) == Window(3.0, 3.0)
    assert end_of(windows(one, clock, "bob"), -1000.0) == math.inf
    clock.advance(4)
    assert window(one, clock).latest == -1


def test_the_age_of_an_invalidation_in_redis_is_known_but_for_the_time_of_the_look() -> None:
    """Inside is what may be; not kept is what may be over."""
    one, clock = made()
    assert window(one, clock, look=Look(FENCE, None, name_moved_ago=1.0)) == Window(2.5, 3.0)


def test_the_later_end_counts() -> None:
    """The mark may be lost in Redis, and the announcement may not have arrived."""
    one, clock = made()
    one.hear(digest_of("ada"))
    assert window(one, clock, look=Look(FENCE, None)).earliest == SETTLE
    clock.advance(3)
    assert window(one, clock, look=Look(FENCE, None, name_moved_ago=0.0)).latest == SETTLE


def test_a_late_or_repeated_announcement_does_not_defer_the_end_that_redis_knows() -> None:
    """The announcement may arrive after the invalidation has returned: an entry ends by the age in Redis."""
    one, clock = made()
    clock.advance(3)
    one.hear(digest_of("ada"))
    assert window(one, clock, look=Look(FENCE, None, name_moved_ago=3.0)) == Window(0.5, SETTLE)
    one.hear(None)
    found = window(one, clock, look=Look(FENCE, None, everyone_moved_ago=3.0))
    assert found.latest - found.earliest == 3.5


def test_after_a_clear_the_windows_end_at_moments_that_digests_fix() -> None:
    """Between once and twice the time, each moment for its share of the users, which load together."""
    one, clock = made()
    one.hear(None)
    look: Look[str] = Look(FENCE, None, everyone_moved_ago=0.0)
    ends = [window(one, clock, f"user{number}", look).latest for number in range(400)]
    assert min(ends) == SETTLE
    assert max(ends) < 2 * SETTLE
    assert len(set(ends)) == MOMENTS
    assert all(ends.count(each) > 50 for each in set(ends))
    assert ends == [window(one, clock, f"user{number}").latest for number in range(400)]


def test_a_held_name_is_kept_by_nothing() -> None:
    """By this process, or by another one, as long as one holder is left."""
    one, clock = made(settle=0.0)
    assert windows(one, clock, look=Look(FENCE, None, is_held=True)) == HELD
    one.hold(["ada", "bob"])
    one.hold(["ada"])
    one.release(["ada", "bob"])
    assert windows(one, clock, look=Look(FENCE, None)) == HELD
    assert windows(one, clock, "bob") == UNBOUNDED
    one.release(["ada"])
    assert windows(one, clock) == UNBOUNDED


def test_zero_switches_it_off() -> None:
    """Whatever was announced, and whatever Redis replies."""
    one, clock = made(settle=0.0)
    one.hear(digest_of("ada"))
    one.hear(None)
    assert windows(one, clock, look=Look(FENCE, None, name_moved_ago=0.0, everyone_moved_ago=0.0)) == UNBOUNDED
    assert one.moved_ago("ada", None) == math.inf


def test_announcements_are_forgotten_once_no_value_of_that_time_can_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded, and rather for too many users than for too few."""
    monkeypatch.setattr(settling, "MOST_REMEMBERED", 3)
    one, clock = made()
    for name in ("ada", "bob", "cy", "dan"):
        one.hear(digest_of(name))
        clock.advance(1)
    # The oldest stands for all names.
    assert window(one, clock, "eve").latest in {-4 + SETTLE * (1 + moment / MOMENTS) for moment in range(MOMENTS)}
    assert window(one, clock, "dan").latest == SETTLE - 1
    clock.advance(200)
    one.hear(digest_of("eve"))
    assert len(one._at) == 1


def test_the_source_gets_the_age_of_the_last_invalidation() -> None:
    """Of announcements and of marks in Redis, for a replica that lags."""
    one, clock = made()
    assert one.moved_ago("ada", None) == math.inf
    one.hear(digest_of("ada"))
    clock.advance(2)
    assert one.moved_ago("ada", Look(FENCE, None, name_moved_ago=7.0)) == 2.0
    assert one.moved_ago("bob", Look(FENCE, None, everyone_moved_ago=7.0)) == 7.0


def test_what_is_loaded_in_two_windows_ends_with_the_first() -> None:
    """The transaction of the later invalidation is over then; it is loaded again in what is left of the other."""
    one, clock = made()
    one.hear(None)
    clock.advance(1)
    one.hear(digest_of("ada"))
    found = one.windows("ada", None, (clock(), clock()))
    ends = sorted(each.latest for each in found)
    assert end_of(found, clock()) == ends[0] == min(clock() + SETTLE, found[0].latest)
    assert end_of(found, ends[0]) == ends[1]
    assert end_of(found, ends[1]) == math.inf


def test_a_longer_settle_than_the_life_of_contexts_is_remembered() -> None:
    """A later invalidation of another name does not shorten it."""
    clock = FakeClock()
    policy = CachePolicy(settle=120.0, ttl=60.0, stale_for=0.0, load_timeout=1.0)
    cache: TieredCache[str] = TieredCache(policy, Database(), counters=Counters(), clock=clock)
    cache.settling.hear(digest_of("ada"))
    clock.advance(119)
    cache.settling.hear(digest_of("bob"))
    assert end_of(cache.settling.windows("ada", None, (clock(), clock())), clock()) == clock() + 1
