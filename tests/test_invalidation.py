"""Whether an invalidation that has waited for others leaves the whole time to transactions that commit after it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest

from ctxmiddleware import InvalidationFailed
from ctxmiddleware.cache.shared import Reach, SharedTierFailed
from ctxmiddleware.invalidation import Invalidator
from ctxmiddleware.pseudonym import Pseudonyms
from ctxmiddleware.reports import Confirmed, InvalidationReport, Silent
from ctxmiddleware.testing import FakeClock

pytestmark = pytest.mark.anyio

SETTLE = 5.0
BOTH = Reach("me", (("other", 1.0),))
KINDS = pytest.mark.parametrize("names", [["eada"], ["eada", "ebob"]], ids=["one", "many"])


class Cache:
    """A cache whose invalidations take some time.

    Args:
        seconds: that each of them takes.
        settle: as of a policy.
    """

    def __init__(self, seconds: float = 0.02, settle: float = SETTLE) -> None:
        self.clock = FakeClock()
        self.seconds, self.settle = seconds, settle
        self.bad: set[str] = set()
        self.failure: SharedTierFailed | None = None
        self.said = BOTH
        self.renewed: list[Sequence[str] | None] = []
        self.known_silent: Collection[str] = ()
        self.settled: list[Sequence[str] | None] = []
        self.renewed_before: list[int] = []
        self.marks: list[bool] = []
        self.invalidated: list[str | None] = []

    async def invalidate(self, name: str | None) -> tuple[int, Reach]:
        """Wait for the others."""
        self.clock.advance(self.seconds)
        if name in self.bad:
            raise SharedTierFailed("gone")
        self.invalidated.append(name)
        return 1, BOTH

    async def settle_from_now(self, names: Sequence[str] | None) -> bool:
        """Say whether it is known everywhere."""
        self.settled.append(names)
        self.renewed_before.append(len(self.renewed))
        return self.marks.pop(0) if self.marks else True

    async def renew(self, names: Sequence[str] | None, known_silent: Collection[str]) -> Reach:
        """Note what is forgotten once more."""
        if self.failure is not None:
            raise self.failure
        self.renewed.append(names)
        self.known_silent = known_silent
        return self.said


def _invalidator(cache: Cache) -> Invalidator:
    return Invalidator(cache, lambda name, ago: None, Pseudonyms(), shared=True, me=lambda: "me", clock=cache.clock)


def _report_of(failure: InvalidationFailed) -> InvalidationReport:
    assert isinstance(failure.report, InvalidationReport)
    return failure.report


@KINDS
async def test_what_was_loaded_while_it_waited_is_forgotten_once_more(names: list[str]) -> None:
    """Else it would be kept from before a COMMIT that comes within `settle` of the return."""
    cache = Cache()
    await _invalidator(cache).many(names)
    assert (sorted(map(str, cache.invalidated)), cache.renewed, cache.settled) == (names, [names], [names])
    assert cache.renewed_before == [1]


async def test_what_was_loaded_of_all_users_is_forgotten_once_more() -> None:
    """An invalidation of all waits as one of a single user does."""
    cache = Cache()
    await _invalidator(cache).of(None)
    assert (cache.renewed, cache.settled, cache.renewed_before) == ([None], [None], [1])


@KINDS
async def test_where_it_has_not_waited_nothing_is_forgotten_twice(names: list[str]) -> None:
    """Each would be a further trip to Redis."""
    cache = Cache(0.001)
    await _invalidator(cache).many(names)
    assert (cache.renewed, cache.settled) == ([], [names])


async def test_a_user_who_is_named_twice_is_invalidated_once() -> None:
    """A query may name it with each of its rows."""
    cache = Cache(0.001)
    await _invalidator(cache).many(["eada", "ebob", "eada"])
    assert sorted(map(str, cache.invalidated)) == ["eada", "ebob"]
    assert cache.settled == [["eada", "ebob"]]


async def test_where_nothing_settles_there_is_nothing_to_forget() -> None:
    """The invalidation came after the COMMIT, as it was switched off to say."""
    cache = Cache(settle=0.0)
    await _invalidator(cache).one(None)
    assert cache.renewed == []


async def test_the_machine_was_suspended_while_it_waited() -> None:
    """Other machines were not, and have kept what they loaded meanwhile."""
    cache = Cache(600.0)
    await _invalidator(cache).one(None)
    assert cache.renewed == [None]


@KINDS
async def test_an_instance_that_did_not_confirm_the_renewal_is_reported(names: list[str]) -> None:
    """Cut off in between, it may serve what it has loaded since it had confirmed the invalidation."""
    cache = Cache()
    cache.said = Reach("me", (("third", 1.0),), (("other", 305.0),), knew=True)
    report = await _invalidator(cache).many(names)
    assert report.silent == (Silent("other", 305.0),)
    assert report.confirmed == (Confirmed("me", 0.0), Confirmed("third", 1.0))
    assert report.others_stop_within == 305.0
    assert (report.memory, report.was_known, report.settles_within) == (len(names), True, SETTLE)


@KINDS
async def test_where_redis_is_not_told_once_more_that_is_a_failure(names: list[str]) -> None:
    """A report that says done would promise what may not hold."""
    cache = Cache()
    cache.failure = SharedTierFailed("gone")
    with pytest.raises(InvalidationFailed) as raised:
        await _invalidator(cache).many(names)
    report = _report_of(raised.value)
    assert (report.redis, report.others_stop_within) == ("failed", None)


async def test_of_many_the_ones_that_redis_took_are_forgotten_once_more() -> None:
    """The error says that they were forgotten."""
    cache = Cache()
    cache.bad = {"ebob"}
    with pytest.raises(InvalidationFailed) as raised:
        await _invalidator(cache).many(["eada", "ebob", "ecarl"])
    assert cache.renewed == [["eada", "ecarl"]]
    assert _report_of(raised.value).redis == "failed"


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_time_to_settle_that_redis_is_not_told_of_is_told_again_or_is_a_failure(lost: int) -> None:
    """It would begin with the invalidation, and end before that of a transaction that relies on the return."""
    cache = Cache(0.0)
    cache.marks = [False] * lost
    if lost == 1:
        assert (await _invalidator(cache).one("eada")).redis == "done"
        assert cache.settled == [["eada"], ["eada"]]
        return
    with pytest.raises(InvalidationFailed, match="time to settle") as raised:
        await _invalidator(cache).one("eada")
    assert _report_of(raised.value).redis == "failed"
