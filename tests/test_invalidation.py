"""Whether an invalidation that has waited for others leaves the whole time to transactions that commit after it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import anyio.lowlevel
import pytest

from ctxmiddleware import InvalidationFailed
from ctxmiddleware.cache.shared import Reach, SharedTierFailed
from ctxmiddleware.invalidation import Invalidator
from ctxmiddleware.pseudonym import Pseudonyms
from ctxmiddleware.reports import Confirmed, InvalidationReport, Silent
from ctxmiddleware.testing import FakeClock

pytestmark = pytest.mark.anyio
ONE_AND_MANY = pytest.mark.parametrize("names", [["eada"], ["eada", "ebob"]], ids=["one", "many"])

SETTLE = 5.0
BOTH = Reach("me", (("other", 1.0),))
KINDS = pytest.mark.parametrize("names", [["eada"], ["eada", "ebob"]], ids=["one", "many"])


class Cache:
    """A cache whose invalidations take some time, by a clock of the test's."""

    def __init__(self, seconds: float, settle: float = 5.0) -> None:
        self.seconds, self.settle = {"eada": seconds, "ebob": seconds, None: seconds}, settle
        self.now = 1000.0
        self.failure: SharedTierFailed | None = None
        self.failing: str | None = None
        self.events: list[tuple[str, object]] = []

    async def invalidate(self, name: str | None) -> tuple[int, Reach]:
        """Wait for the others."""
        await anyio.lowlevel.checkpoint()
        self.now += self.seconds[name]
        if name == self.failing and name is not None:
            raise SharedTierFailed("gone")
        self.events.append(("invalidated", name))
        return 1, Reach("me")

    async def settle_from_now(self, names: Sequence[str] | None) -> None:
        """Note from when on it settles."""
        self.events.append(("settles", names))

    async def renew(self, names: Sequence[str] | None, known_silent: Collection[str]) -> Reach:
        """Note what is forgotten once more."""
        if self.failure is not None:
            raise self.failure
        self.events.append(("renewed", name))

    @property
    def renewed(self) -> list[object]:
        """What was forgotten once more."""
        return [name for event, name in self.events if event == "renewed"]


def _invalidator(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Invalidator:
    monkeypatch.setattr("ctxmiddleware.invalidation.time", SimpleNamespace(perf_counter=lambda: cache.now))
    return Invalidator(cache, lambda name, ago: None, Pseudonyms(), shared=True, me=lambda: "me")


@ONE_AND_MANY
async def test_what_was_loaded_while_it_waited_is_forgotten_once_more(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be kept from before a COMMIT that comes within `settle` of the return."""
    cache = Cache(0.25)
    await _invalidator(cache, monkeypatch).many(names)
    invalidated, after = cache.events[: len(names)], cache.events[len(names) :]
    assert sorted(invalidated) == [("invalidated", name) for name in names]
    assert after == [*[("renewed", name) for name in names], ("settles", names)]


async def test_what_was_loaded_of_all_users_is_forgotten_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalidation of all waits as one of a single user does."""
    cache = Cache(0.25)
    await _invalidator(cache, monkeypatch).of(None)
    assert cache.events == [("invalidated", None), ("renewed", None), ("settles", None)]


@ONE_AND_MANY
async def test_where_it_has_not_waited_nothing_is_forgotten_twice(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would be a further trip to Redis."""
    cache = Cache(0.001)
    await _invalidator(cache, monkeypatch).many(names)
    assert cache.renewed == []
    assert cache.events[-1] == ("settles", names)


async def test_of_many_those_that_were_begun_late_have_not_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is compared with its own begin, and not with that of the first."""
    monkeypatch.setattr("ctxmiddleware.invalidation._AT_ONCE", 1)
    cache = Cache(0.001)
    cache.seconds["eada"] = 0.25
    await _invalidator(cache, monkeypatch).many(["eada", "ebob"])
    assert cache.renewed == ["eada"]


async def test_a_user_who_is_named_twice_is_invalidated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A query may name it with each of its rows."""
    cache = Cache(0.001)
    await _invalidator(cache, monkeypatch).many(["eada", "ebob", "eada"])
    assert sorted(str(name) for event, name in cache.events if event == "invalidated") == ["eada", "ebob"]


async def test_where_nothing_settles_there_is_nothing_to_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """The invalidation came after the COMMIT, as it was switched off to say."""
    cache = Cache(0.25, settle=0.0)
    await _invalidator(cache, monkeypatch).one(None)
    assert cache.renewed == []


@ONE_AND_MANY
async def test_where_redis_is_not_told_once_more_that_is_a_failure(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that says done would promise what may not hold."""
    cache = Cache(0.25)
    cache.failure = SharedTierFailed("gone")
    with pytest.raises(InvalidationFailed) as raised:
        await _invalidator(cache, monkeypatch).many(names)
    assert getattr(raised.value.report, "redis", None) == "failed"


async def test_where_one_of_many_has_failed_the_error_is_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller repeats all of them: Redis, which does not answer, is not asked for more."""
    cache = Cache(0.25)
    cache.failing, cache.failure = "ebob", SharedTierFailed("gone as well")
    with pytest.raises(InvalidationFailed, match="1 of 2 users"):
        await _invalidator(cache, monkeypatch).many(["eada", "ebob"])
    assert cache.renewed == []
