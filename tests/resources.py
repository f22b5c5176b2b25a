"""A resource whose opening and closing a test can hold up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio


class Rig:
    """Resources numbered in the order of their opening; opening and closing wait where a gate is shut."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.opened = 0
        self.opening = anyio.Event()
        self.closing = anyio.Event()
        self.opening.set()
        self.closing.set()

    @asynccontextmanager
    async def open_one(self) -> AsyncIterator[str]:
        """Open one resource."""
        self.opened += 1
        number = self.opened
        self.events.append(f"opening {number}")
        await self.opening.wait()
        try:
            yield f"resource {number}"
        finally:
            self.events.append(f"closing {number}")
            with anyio.CancelScope(shield=True):
                await self.closing.wait()
            self.events.append(f"closed {number}")
