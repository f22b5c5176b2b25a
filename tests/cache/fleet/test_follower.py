"""Whether announcements are taken in order, and whatever does not fit is noticed: the follower alone, without Redis."""

from __future__ import annotations

import math

import pytest

from ctxmiddleware.cache.redis.channel import Follower
from ctxmiddleware.cache.redis.lua.channel import Beat
from ctxmiddleware.cache.redis.news import News
from ctxmiddleware.cache.redis.register import entry_of, read_entry
from ctxmiddleware.stats import Counters
from tests.cache.contract.sides import Recorder


@pytest.fixture
def ear() -> Recorder:
    """Who is told."""
    return Recorder()


@pytest.fixture
def follower(ear: Recorder) -> Follower:
    """One that has begun after the third announcement."""
    follower = Follower(ear, Counters(), {b"own"})
    follower.beat(Beat(b"i", 3, b"3-0"), 1.0)
    return follower


def _news(number: int, *, place: bytes = b"", incarnation: bytes = b"i", token: bytes = b"t") -> News:
    return News(place or b"%d-0" % number, incarnation, number, "done", b"d", b"g", token, b"f")


def test_the_first_beat_proves_and_flushes(follower: Follower, ear: Recorder) -> None:
    """What was looked up before it may have missed what was announced before it."""
    assert (ear.misses, ear.proven_at, follower.is_following) == (1, 1.0, True)


def test_a_beat_proves_once_all_it_promises_has_been_taken(follower: Follower, ear: Recorder) -> None:
    """Not a moment earlier."""
    follower.beat(Beat(b"i", 5, b"5-0"), 2.0)
    follower.take([_news(4)])
    assert (ear.proven_at, follower.is_behind) == (1.0, True)
    follower.take([_news(5)])
    assert (ear.proven_at, follower.is_behind) == (2.0, False)


def test_news_of_after_the_beat_prove_it_as_well(follower: Follower, ear: Recorder) -> None:
    """Its place in the stream is not compared then: it is not the last one any more."""
    follower.beat(Beat(b"i", 4, b"4-0"), 2.0)
    follower.take([_news(4), _news(5)])
    assert (ear.proven_at, ear.misses) == (2.0, 1)


@pytest.mark.parametrize(
    ("taken", "beat"),
    [
        ([], Beat(b"i", 3, b"9-0")),
        ([_news(4)], Beat(b"i", 4, b"9-0")),
        ([_news(4, place=b"9-0")], Beat(b"i", 4, b"4-0")),
    ],
    ids=["nothing new", "one more", "of the other server"],
)
def test_the_same_number_at_another_place_is_another_server_s(
    follower: Follower, ear: Recorder, taken: list[News], beat: Beat
) -> None:
    """Two servers, each of which was the master, have given the same number to two invalidations: it is no proof."""
    follower.beat(beat, 2.0)
    follower.take(taken)
    assert (ear.proven_at, ear.misses, follower.is_following) == (1.0, 2, False)


def test_a_stream_that_was_emptied_by_hand_is_no_other_server_s(follower: Follower, ear: Recorder) -> None:
    """It has no last place, and nothing is missing."""
    follower.beat(Beat(b"i", 3, b"0-0"), 2.0)
    assert (ear.proven_at, ear.misses) == (2.0, 1)


def test_an_own_invalidation_is_counted_and_drops_nothing(follower: Follower, ear: Recorder) -> None:
    """The process has dropped its entries before it announced it, and may have loaded them again since."""
    assert follower.take([_news(4, token=b"own"), _news(5)]) == [_news(4, token=b"own"), _news(5)]
    assert (ear.forgotten, ear.misses, follower.place) == ([(b"d", b"g")], 1, b"5-0")


@pytest.mark.parametrize("news", [_news(5), _news(3), _news(4, incarnation=b"j")], ids=["gap", "back", "other"])
def test_what_does_not_follow_ends_trust(follower: Follower, ear: Recorder, news: News) -> None:
    """Whatever was in between nobody knows; it is not obeyed either."""
    assert follower.take([news]) == []
    assert (ear.misses, ear.forgotten, follower.is_following) == (2, [], False)


def test_an_entry_of_the_register_says_who_and_for_how_long() -> None:
    """A name may hold what separates them, or what is no text."""
    assert read_entry(entry_of("host:1:ab cd", 4.5)) == ("host:1:ab cd", 4.5)
    assert read_entry(b"100 \xff") == ("�", 0.1)
    assert not math.isnan(read_entry(b"0 x")[1])
    for strange in (b"", b"host:1:abcd", b"nan x", b"1.5 x"):
        with pytest.raises(ValueError, match="invalid literal"):
            read_entry(strange)
