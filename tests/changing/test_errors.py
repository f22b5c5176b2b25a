"""Which error a block ends with where its end fails, and what is left of the hold."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from ctxmiddleware import InvalidationFailed
from ctxmiddleware.blocking import Blocking
from ctxmiddleware.cache.shared import SharedTierFailed
from ctxmiddleware.changing import Changing
from ctxmiddleware.hold import Hold, HoldTask

from .rig import ADA, Rows, held_by, plugin_over


class Failing:
    """Holds whose ends fail."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure
        self.holds: list[Hold] = []

    async def begin(self, hold: Hold) -> None:
        """Begin."""
        self.holds.append(hold)

    async def end(self, hold: Hold) -> None:
        """Fail."""
        raise self.failure


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    """What runs the synchronous form."""
    one = Blocking(lambda: plugin_over(Rows())._holding.serving())
    yield one
    one.stop()


def _block(failure: Exception, blocking: Blocking) -> tuple[Changing, Failing]:
    holding: Any = Failing(failure)
    return Changing(["eada"], lambda: holding, blocking), holding


def test_a_synchronous_block_whose_end_fails_raises_that(blocking: Blocking) -> None:
    """And its hold is over: nothing renews it."""
    failure = InvalidationFailed("not told")
    block, holding = _block(failure, blocking)
    with pytest.raises(InvalidationFailed) as raised, block:
        pass
    assert raised.value is failure
    assert [hold.is_over for hold in holding.holds] == [True]


def test_the_error_of_a_synchronous_body_wins_and_names_the_failure_of_the_end(blocking: Blocking) -> None:
    """It is the one that the caller handles."""
    failure = InvalidationFailed("not told")
    block, holding = _block(failure, blocking)
    with pytest.raises(LookupError) as raised, block:
        raise LookupError("the body's")
    assert raised.value.__context__ is failure
    assert raised.value.__notes__ == [f"and at the end of plugin.changing(): {failure}"]
    assert [hold.is_over for hold in holding.holds] == [True]


@pytest.mark.parametrize(("failure", "count"), [(InvalidationFailed("not told"), 0), (OSError("disk"), 1)])
def test_a_failure_that_nothing_else_logs_is_logged(
    failure: Exception, count: int, blocking: Blocking, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed invalidation is logged where it fails."""
    block, _ = _block(failure, blocking)
    with pytest.raises(LookupError), block:
        raise LookupError
    records = [record for record in caplog.records if "was not ended" in record.message]
    assert [record.levelno for record in records] == [logging.ERROR] * count


def test_the_failure_is_put_behind_the_contexts_that_the_error_has(blocking: Blocking) -> None:
    """Nothing of what led to the error is lost."""
    failure = InvalidationFailed("not told")
    block, _ = _block(failure, blocking)
    first, then = KeyError("first"), LookupError("then")
    then.__context__ = first
    with pytest.raises(LookupError) as raised, block:
        raise then
    assert raised.value.__context__ is first
    assert first.__context__ is failure


def test_contexts_that_are_a_circle_stay_one(blocking: Blocking) -> None:
    """A library may have made it; a walk along it ends."""
    failure = InvalidationFailed("not told")
    block, _ = _block(failure, blocking)
    first, second = KeyError("first"), LookupError("second")
    first.__context__, second.__context__ = second, first
    with pytest.raises(LookupError) as raised, block:
        raise second
    assert raised.value.__context__ is first
    assert first.__context__ is second
    assert failure.__context__ is None


def test_a_block_that_is_not_open_is_not_ended(blocking: Blocking) -> None:
    """Its second end would end the hold of nothing."""
    block, _ = _block(InvalidationFailed("not told"), blocking)
    with pytest.raises(RuntimeError, match="is not open"):
        block.__exit__(None, None, None)


@pytest.mark.anyio
async def test_what_cannot_be_opened_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is that of the opening, and the body does not run."""

    class Closed:
        async def __aenter__(self) -> None:
            raise OSError("no connection")

        async def __aexit__(self, *_: object) -> None:
            pass

    async with plugin_over(Rows()) as plugin:
        monkeypatch.setattr(plugin._holding, "_opened", Closed())
        with pytest.raises(OSError, match="no connection"):
            async with plugin.changing(ADA):
                pytest.fail("the body ran")
        assert held_by(plugin) == {}


@pytest.mark.anyio
@pytest.mark.trio_branches
async def test_an_end_outside_of_every_event_loop_is_an_error_and_holds_nobody() -> None:
    """As in a process that was forked in the block; the hold would last as long as the process."""
    plugin = plugin_over(Rows())
    async with plugin:
        block = plugin.changing(ADA)
        await block.__aenter__()
        hold, block._hold = block._hold, None
        assert hold is not None
        assert held_by(plugin) != {}
        hold.task = None

        def end() -> None:
            with pytest.raises(RuntimeError):
                plugin._holding.end(hold).send(None)

        await anyio.to_thread.run_sync(end)
        assert held_by(plugin) == {}


@pytest.mark.anyio
async def test_a_hold_that_redis_is_not_told_of_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The body would change what other instances keep."""

    async def failing(*_: object) -> None:
        raise SharedTierFailed("gone")

    async with plugin_over(Rows()) as plugin:
        monkeypatch.setattr(plugin._assembly.cache, "hold", failing)
        with pytest.raises(InvalidationFailed):
            async with plugin.changing(ADA):
                pytest.fail("the body ran")
        assert held_by(plugin) == {}


@pytest.mark.anyio
async def test_a_hold_that_redis_is_not_told_the_end_of_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In Redis it ends by itself, and the block ends well."""

    async def failing(*_: object) -> None:
        raise SharedTierFailed("gone")

    async with plugin_over(Rows()) as plugin:
        async with plugin.changing(ADA):
            monkeypatch.setattr(plugin._assembly.cache, "let_go", failing)
        assert held_by(plugin) == {}
    assert [record.levelno for record in caplog.records if "expires by itself" in record.message] == [logging.WARNING]


@pytest.mark.anyio
@pytest.mark.trio_branches
async def test_a_hold_belongs_to_the_loop_of_its_task() -> None:
    """It is orphaned once that loop has ended, and before it has a task it is not."""
    hold = Hold(["eada"])
    seen = [hold.is_orphaned]

    async def begin() -> None:
        hold.task = HoldTask()
        seen.append(not hold.task.is_in_running_loop)
        seen.append(hold.is_orphaned)
        seen.append(await anyio.to_thread.run_sync(lambda: hold.is_orphaned))

    await anyio.to_thread.run_sync(lambda: anyio.run(begin))
    assert seen == [False] * 4
    assert hold.task is not None
    assert not hold.task.is_in_running_loop
    assert hold.is_orphaned
    hold.is_ended = True
    assert [hold.is_orphaned] == [False]


@pytest.mark.anyio
async def test_a_hold_whose_loop_is_one_of_trio_is_orphaned_with_it() -> None:
    """Its token says so, which refuses further calls."""
    hold, seen = Hold(["eada"]), list[bool]()

    async def begin() -> None:
        hold.task = HoldTask()
        seen.append(hold.is_orphaned)
        await anyio.lowlevel.checkpoint()

    await anyio.to_thread.run_sync(lambda: anyio.run(begin, backend="trio"))
    seen.append(hold.is_orphaned)
    assert seen == [False, True]


def test_nothing_of_who_is_held_is_shown() -> None:
    """Only how many."""
    assert repr(plugin_over(Rows())._holding) == "<Holding: 0 open>"
