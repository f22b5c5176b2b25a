"""How a test waits for something that another process or task will do: by looking again, for a bounded time."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, overload

import anyio

T = TypeVar("T")
# Longer than a busy machine takes for anything: a wait that succeeds ends with the first look that finds it.
PATIENCE: Final = 30.0
_PAUSE = 0.01


def eventually(look: Callable[[], T], timeout: float = PATIENCE) -> T:
    """Return the first true value that `look` gives.

    Args:
        look: called again and again; an OSError means not yet.
        timeout: seconds after which the wait fails.
    """
    end = time.monotonic() + timeout
    while True:
        last: object
        try:
            if found := look():
                return found
            last = found
        except OSError as error:
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout:g} s; last seen: {last!r}")
        time.sleep(_PAUSE)


@overload
async def eventually_async(look: Callable[[], Awaitable[T]], timeout: float = PATIENCE) -> T: ...


@overload
async def eventually_async(look: Callable[[], T], timeout: float = PATIENCE) -> T: ...


async def eventually_async(look: Callable[[], object], timeout: float = PATIENCE) -> object:
    """Return the first true value that `look` gives, on any event loop.

    Args:
        look: called, and awaited where it answers with an awaitable, again and again; an OSError means not yet.
        timeout: seconds after which the wait fails.
    """
    end = time.monotonic() + timeout
    while True:
        last: object
        try:
            if found := await _value(look()):
                return found
            last = found
        except OSError as error:
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout:g} s; last seen: {last!r}")
        await anyio.sleep(_PAUSE)


async def _value(answer: object) -> object:
    return await answer if inspect.isawaitable(answer) else answer
