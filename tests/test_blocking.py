"""Synchronous calls of coroutine functions: what becomes of them where an event loop ends, stands still or fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from ctxmiddleware.blocking import Blocking, _Call, _LoopEnded, _LoopThread

from .waiting import PATIENCE, eventually, eventually_async

R = TypeVar("R")


@asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    """Open nothing."""
    yield


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    """Calls that need nothing opened."""
    one = Blocking(nothing)
    yield one
    one.stop()


def in_thread(work: Callable[[], R]) -> R:
    """Return what is returned in a thread, which must end."""
    done: Future[R] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done.result(PATIENCE)


def test_a_timeout_of_the_function_is_raised_and_not_taken_for_one_of_the_wait(blocking: Blocking) -> None:
    """Both are of one class."""

    async def late() -> None:
        raise TimeoutError("of the function")

    with pytest.raises(TimeoutError, match="of the function"):
        in_thread(lambda: blocking.run(late))


def test_a_function_that_has_begun_is_waited_for_and_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes: only one that has not begun in time is run elsewhere."""
    monkeypatch.setattr("ctxmiddleware.blocking._LOOKED_EVERY", 0.002)
    begun: list[object] = []

    async def slow() -> str:
        begun.append(asyncio.get_running_loop())
        await asyncio.sleep(0.05)
        return "done"

    async def main() -> str:
        call = _Call(slow, asyncio.get_running_loop())
        await eventually_async(lambda: begun)
        found = await asyncio.to_thread(call.result, 0.004)
        assert begun == [asyncio.get_running_loop()]
        return found

    assert asyncio.run(main()) == "done"


def test_a_call_that_ends_with_its_event_loop_is_run_in_another(blocking: Blocking) -> None:
    """The end of asyncio.run cancels it; the caller gets what the second run returns."""
    begun: list[asyncio.AbstractEventLoop] = []
    found: list[str] = []

    async def call() -> str:
        begun.append(asyncio.get_running_loop())
        if len(begun) == 1:
            await asyncio.sleep(3600)
        return "done"

    thread = threading.Thread(target=lambda: found.append(blocking.run(call)), daemon=True)

    async def main() -> None:
        with blocking.serving():
            thread.start()
            await eventually_async(lambda: begun)

    asyncio.run(main())
    thread.join(PATIENCE)
    assert found == ["done"]
    assert len(set(map(id, begun))) == 2


def test_a_loop_that_does_not_run_is_passed_over(blocking: Blocking) -> None:
    """Between two runs of `run_until_complete` it would answer nothing."""
    idle = asyncio.new_event_loop()

    async def loop() -> object:
        return asyncio.get_running_loop()

    async def serve() -> Any:
        serving = blocking.serving()
        serving.__enter__()
        return serving

    serving = idle.run_until_complete(serve())
    assert in_thread(lambda: blocking.run(loop)) is not idle
    serving.__exit__(None, None, None)
    idle.close()


def test_a_call_to_a_closed_loop_has_not_begun() -> None:
    """It may be closed between the look and the call; the coroutine is closed as well, without a warning."""
    closed = asyncio.new_event_loop()
    closed.close()

    async def call() -> None:
        pytest.fail("it ran")

    with pytest.raises(_LoopEnded, match="was closed"):
        _Call(call, closed)


def test_what_runs_in_the_thread_may_stop_it(blocking: Blocking) -> None:
    """As the finalizer of a plugin does that is collected there: a thread cannot wait for its own end."""

    async def stop() -> str:
        blocking.stop()
        return "stopped"

    assert in_thread(lambda: blocking.run(stop)) == "stopped"


def test_a_thread_whose_loop_is_closed_already_is_stopped_without_an_error() -> None:
    """It may be on its way out."""
    thread, closed = _LoopThread(nothing()), asyncio.new_event_loop()
    thread.loop()
    begun, thread._begun = thread._begun, Future()
    closed.close()
    thread._begun.set_result((closed, asyncio.Event()))
    thread.stop()
    assert not thread.is_serving
    thread._begun = begun
    thread.stop()
    thread.join()


def test_an_error_while_the_thread_closes_what_it_opened_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the hook for threads: no caller is left that could get it."""
    reported: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)

    @asynccontextmanager
    async def failing() -> AsyncIterator[None]:
        yield
        raise OSError("not closed")

    blocking = Blocking(failing)

    async def call() -> str:
        return "done"

    assert in_thread(lambda: blocking.run(call)) == "done"
    blocking.stop()
    eventually(lambda: reported)
    assert [str(each.exc_value) for each in reported] == ["not closed"]


def test_a_thread_that_another_caller_was_faster_to_begin_has_closed_what_it_opened_once_all_are_stopped() -> None:
    """It would register its instance after the others have left."""
    both, used, closed = threading.Barrier(2), set[int](), set[int]()

    @asynccontextmanager
    async def slowly() -> AsyncIterator[None]:
        yield
        if threading.get_ident() not in used:
            await asyncio.sleep(0.5)
        closed.add(threading.get_ident())

    def opened() -> Any:
        both.wait(PATIENCE)
        return slowly()

    async def call() -> None:
        used.add(threading.get_ident())

    blocking = Blocking(opened)
    callers = [threading.Thread(target=blocking.run, args=(call,)) for _ in range(2)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    blocking.stop()
    assert len(closed - used) == 1
