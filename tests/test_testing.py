"""What the library gives to its users' own tests."""

from __future__ import annotations

import contextlib

import pytest

from ctxmiddleware import Identity, Loaded, SourceUnavailable, UserContext, current_user_context
from ctxmiddleware.testing import FakeClock, StaticSource, override_user_context

from .people import ADA, BOB, NOBODY, context_of

pytestmark = pytest.mark.anyio


async def test_a_static_source_answers_from_its_mapping_and_counts() -> None:
    """Any spelling of an address finds its context, an error is raised, and others are unknown."""
    source = StaticSource[UserContext]({f" {ADA.upper()}": context_of(ADA), BOB: SourceUnavailable("down")}, origin="x")
    assert await source.fetch(Identity(ADA.title())) == Loaded(context_of(ADA), "x")
    assert await source.fetch(Identity(NOBODY)) == Loaded(None, "x")
    with pytest.raises(SourceUnavailable, match="down"):
        await source.fetch(Identity(BOB))
    assert source.calls == [Identity(each) for each in (ADA.title(), NOBODY, BOB)]
    assert repr(source) == "<StaticSource: 2 contexts, 3 calls>"


def test_a_fake_clock_moves_when_it_is_told_to() -> None:
    """Time stands still but for `advance`."""
    clock = FakeClock(5.0)
    assert (clock(), clock()) == (5.0, 5.0)
    clock.advance(2.5)
    assert clock() == 7.5


def test_an_override_ends_with_its_block() -> None:
    """Even where the block fails, nothing is left behind, and other plugins' keys are not touched."""
    with contextlib.suppress(KeyError), override_user_context(context_of(ADA)):
        assert current_user_context() == context_of(ADA)
        raise KeyError
    assert current_user_context() is None
    with override_user_context("x", key="user_context:other"):
        assert current_user_context() is None
    assert current_user_context() is None
