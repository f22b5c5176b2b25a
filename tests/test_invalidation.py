"""Whether an invalidation that has waited for others leaves the whole time to transactions that commit after it."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from ctxmiddleware import InvalidationFailed
from ctxmiddleware.cache.shared import Reach, SharedTierFailed
from ctxmiddleware.invalidation import Invalidator
from ctxmiddleware.pseudonym import Pseudonyms

pytestmark = pytest.mark.anyio


class Cache:
    """A cache whose invalidations take some time."""

    def __init__(self, seconds: float, settle: float = 5.0, failure: SharedTierFailed | None = None) -> None:
        self.seconds, self.settle, self.failure = seconds, settle, failure
        self.renewed: list[str | None] = []

    async def invalidate(self, name: str | None) -> tuple[int, Reach]:
        """Wait for the others."""
        await anyio.sleep(self.seconds)
        return 1, Reach("me")

    async def settle_from_now(self, names: Sequence[str] | None) -> None:
        """Do nothing."""

    async def renew(self, name: str | None) -> None:
        """Note what is forgotten once more."""
        if self.failure is not None:
            raise self.failure
        self.renewed.append(name)


def _invalidator(cache: Cache) -> Invalidator:
    return Invalidator(cache, lambda name, ago: None, Pseudonyms(), shared=True, me=lambda: "me")


@pytest.mark.parametrize("names", [["eada"], ["eada", "ebob"]], ids=["one", "many"])
async def test_what_was_loaded_while_it_waited_is_forgotten_once_more(names: list[str]) -> None:
    """Else it would be kept from before a COMMIT that comes within `settle` of the return."""
    cache = Cache(0.02)
    await _invalidator(cache).many(names)
    assert cache.renewed == names


async def test_where_nothing_settles_there_is_nothing_to_forget() -> None:
    """The invalidation came after the COMMIT, as it was switched off to say."""
    cache = Cache(0.02, settle=0.0)
    await _invalidator(cache).one(None)
    assert cache.renewed == []


@pytest.mark.parametrize("names", [["eada"], ["eada", "ebob"]], ids=["one", "many"])
async def test_a_failure_of_the_second_invalidation_is_a_failure(names: list[str]) -> None:
    """A report with `done` would promise a bound that may not hold."""
    cache = Cache(0.02, failure=SharedTierFailed("gone"))
    with pytest.raises(InvalidationFailed) as raised:
        await _invalidator(cache).many(names)
    assert getattr(raised.value.report, "redis", None) == "failed"
