"""An event that any thread may set for the event loop that waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import anyio


class Bell:
    """Wakes what waits in the event loop it was made in, rung from any thread; rung before, it does not wait."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._in_its_loop = _caller()

    def ring(self) -> None:
        """Wake whoever waits."""
        # An event loop that has ended has nobody to wake.
        with contextlib.suppress(RuntimeError):
            self._in_its_loop(self._event.set)

    async def wait(self) -> None:
        """Wait until it has rung since the last wait."""
        await self._event.wait()
        self._event = anyio.Event()


def _caller() -> Callable[[Callable[[], Any]], object]:
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon
