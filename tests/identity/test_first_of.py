"""Who asks, where there are several ways to find out."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.types import Scope

from ctxmiddleware import ConfigurationError, Identify, Identity, ScopeUser, first_of
from ctxmiddleware.identity.first_of import resolved

from ..people import ADA, BOB, by_header, by_header_later

pytestmark = pytest.mark.anyio


async def found_by(identify: Identify, scope: Scope) -> Identity | None:
    """Return whom it finds, whether it has to be awaited or not."""
    return await resolved(identify(scope))


def bob(scope: Scope) -> Identity:
    """Say Bob."""
    return Identity(BOB)


def raises(scope: Scope) -> Identity:
    """Fail."""
    raise LookupError


@pytest.mark.parametrize("way", [by_header, by_header_later])
async def test_the_first_identity_counts(way: Any) -> None:
    """Sync and async ways are asked in their order, and those after the first answer are not."""
    ada = {"headers": [(b"x-user", ADA.encode())]}
    assert await found_by(first_of(way, raises), ada) == Identity(ADA)
    assert await found_by(first_of(way, bob), {"headers": []}) == Identity(BOB)
    assert await found_by(first_of(ScopeUser(), way, bob), {"headers": [], "user": None}) == Identity(BOB)


async def test_nobody_is_nobody() -> None:
    """Where no way finds anybody, the request is anonymous."""
    assert await found_by(first_of(by_header, by_header_later), {"headers": []}) is None


async def test_an_error_ends_the_search() -> None:
    """A way that fails is not passed over: the next one might name somebody else."""
    with pytest.raises(LookupError):
        await found_by(first_of(raises, bob), {"headers": []})


async def test_nonsense_ends_the_search() -> None:
    """What is neither an identity nor None is a mistake, not a nobody."""
    nonsense: Any = lambda scope: ADA  # noqa: E731 - it is a value here
    with pytest.raises(TypeError, match="must return an Identity or None"):
        await found_by(first_of(nonsense, bob), {"headers": []})


def test_ways_that_answer_at_once_need_no_await() -> None:
    """A search among synchronous ways is one itself, and stops at the first identity."""
    ada = {"headers": [(b"x-user", ADA.encode())]}
    assert first_of(by_header, raises)(ada) == Identity(ADA)
    assert first_of(first_of(by_header), bob)({"headers": []}) == Identity(BOB)
    assert first_of(by_header)({"headers": []}) is None


async def test_they_nest() -> None:
    """One search can be a way of another."""
    assert await found_by(first_of(first_of(by_header), bob), {"headers": []}) == Identity(BOB)


@pytest.mark.parametrize("ways", [(), (None,), (by_header, "x-user")])
def test_no_way_or_what_cannot_be_asked_is_refused_at_once(ways: Any) -> None:
    """A search that finds nobody ever would make everybody anonymous."""
    with pytest.raises(ConfigurationError, match="first_of"):
        first_of(*ways)
