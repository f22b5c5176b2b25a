"""Whether the guard of a source's ways counts what tells of the way, and nothing else."""

from __future__ import annotations

import anyio
import pytest

from ctxmiddleware.errors import SourceUnavailable
from ctxmiddleware.sources.exchange import OutOfTime
from ctxmiddleware.sources.paths import Paths
from ctxmiddleware.testing import FakeClock

pytestmark = pytest.mark.anyio


async def _down() -> None:
    raise SourceUnavailable("down", outage=True)


async def _hiccup() -> None:
    raise SourceUnavailable("a query of one user")


async def _answers() -> str:
    return "context"


async def _open(paths: Paths) -> None:
    for _ in range(5):
        with pytest.raises(SourceUnavailable, match="down"):
            await paths.through("rpc", _down)
    assert paths.states() == {"rpc": "open"}


async def test_a_cancelled_try_lets_another_in_at_once() -> None:
    """Half-open, the one call that tries may lose its caller: that tells nothing of the source."""
    clock = FakeClock()
    paths = Paths(("rpc",), clock)
    await _open(paths)
    clock.advance(1)
    with anyio.move_on_after(0.01) as scope:
        await paths.through("rpc", anyio.sleep_forever)
    assert scope.cancelled_caught
    assert await paths.through("rpc", _answers) == "context"
    assert paths.states() == {"rpc": "closed"}


async def test_a_call_whose_time_ended_has_failed_and_one_that_was_given_up_early_has_not() -> None:
    """A load that may take less than the client's own time-outs still opens the way of a server that hangs."""
    clock = FakeClock()
    paths = Paths(("rpc",), clock, cancelled_fails_after=1.0)

    async def hangs(seconds: float) -> None:
        clock.advance(seconds)
        await anyio.sleep_forever()

    for seconds, state in ((0.9, "closed"), (1.0, "open")):
        for number in range(5):
            with anyio.move_on_after(0.001):
                await paths.through("rpc", lambda seconds=seconds: hangs(seconds), who=str(number))  # type: ignore[misc]  # a bound value
        assert paths.states() == {"rpc": state}


async def test_one_users_failing_try_is_not_the_last_word() -> None:
    """After an outage whoever asks again and again for one who cannot be loaded keeps nobody else out."""
    clock = FakeClock()
    paths = Paths(("rpc",), clock)
    await _open(paths)
    clock.advance(1)
    with pytest.raises(SourceUnavailable, match="a query"):
        await paths.through("rpc", _hiccup, who="ada")
    with pytest.raises(SourceUnavailable, match="left alone"):
        await paths.through("rpc", _hiccup, who="ada")
    assert await paths.through("rpc", _answers, who="bob") == "context"


async def test_a_call_for_many_that_tries_and_fails_gives_its_place_back() -> None:
    """Whatever it failed of, it is told: the way is left alone for longer, and then tried again."""
    clock = FakeClock()
    paths = Paths(("rpc",), clock)
    await _open(paths)
    clock.advance(1)
    with pytest.raises(SourceUnavailable, match="a query"):
        await paths.through("rpc", _hiccup, many=True)
    assert paths.states() == {"rpc": "open"}
    clock.advance(2)
    assert await paths.through("rpc", _answers, many=True) == "context"


async def test_what_fails_for_many_tells_nothing_of_a_way_that_is_open() -> None:
    """It may have been the fault of one of them; that its time ran out tells."""
    paths = Paths(("rpc",), FakeClock())

    async def late() -> None:
        raise OutOfTime("a query took too long")

    for call, state in ((_hiccup, "closed"), (late, "open")):
        for _ in range(5):
            with pytest.raises(SourceUnavailable):
                await paths.through("rpc", call, many=True)
        assert paths.states() == {"rpc": state}
