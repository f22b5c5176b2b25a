"""An event that any thread may set for the event loop that waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import anyio

# Rung all at once, ten thousand who wait would have one turn of their event loop together: a third of a second in which
# it does nothing else.
AT_ONCE: Final = 200


class Bell:
    """Wakes what waits in the event loop it was made in, rung from any thread; rung before, it does not wait."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._in_its_loop = _caller()

    def ring(self) -> None:
        """Wake whoever waits."""
        # An event loop that has ended has nobody to wake.
        with contextlib.suppress(RuntimeError):
            self._in_its_loop(self._set)

    def _set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        """Wait until it has rung since the last wait."""
        await self._event.wait()
        self._event = anyio.Event()


def ring_all(bells: Iterable[Bell]) -> None:
    """Wake many, some in each turn of their event loop."""
    by_loop: dict[Callable[[Callable[[], Any]], object], list[Bell]] = {}
    for bell in bells:
        by_loop.setdefault(bell._in_its_loop, []).append(bell)
    for call, its_bells in by_loop.items():
        _ring_some(call, its_bells, 0)


def _ring_some(call: Callable[[Callable[[], Any]], object], bells: Sequence[Bell], start: int) -> None:
    def ring() -> None:
        for bell in bells[start : start + AT_ONCE]:
            bell._set()
        if len(bells) > start + AT_ONCE:
            _ring_some(call, bells, start + AT_ONCE)

    with contextlib.suppress(RuntimeError):
        call(ring)


def _caller() -> Callable[[Callable[[], Any]], object]:
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon
