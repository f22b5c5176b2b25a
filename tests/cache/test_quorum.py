"""Whether several are asked at once, and those who do not answer are not waited for without need."""

from __future__ import annotations

import anyio
import pytest

from ctxmiddleware.cache.redis.servers.quorum import heard

pytestmark = pytest.mark.anyio


async def _ask(place: str) -> str:
    if place == "hung":
        await anyio.sleep_forever()
    if place == "refused":
        raise ConnectionRefusedError(place)
    return place


async def test_enough_answers_are_enough() -> None:
    """With no time limit to speak of, one that hangs holds up nobody."""
    with anyio.fail_after(30):
        assert sorted(await heard(["a", "hung", "b"], _ask, enough=2, seconds=60)) == ["a", "b"]


async def test_who_cannot_answer_counts_for_nothing() -> None:
    """All have been asked, and one answer is better than none."""
    assert await heard(["refused", "a", "refused"], _ask, enough=2, seconds=60) == ["a"]


async def test_when_the_time_is_over_what_was_said_stands() -> None:
    """Fewer than enough, but some."""
    assert await heard(["hung", "a", "hung"], _ask, enough=2, seconds=0.01) == ["a"]


async def test_nobody_s_answer_is_an_error() -> None:
    """It says what the first of them failed with, or that the time is over."""
    with pytest.raises(ConnectionRefusedError):
        await heard(["refused", "hung"], _ask, enough=2, seconds=0.01)
    with pytest.raises(TimeoutError):
        await heard(["hung"], _ask, enough=1, seconds=0.01)
