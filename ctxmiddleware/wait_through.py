"""A wait that no cancellation cuts short, neither of anyio nor of asyncio."""

from __future__ import annotations

import asyncio

import anyio


async def wait_through(event: anyio.Event) -> asyncio.CancelledError | None:
    """Wait for an event and return the last cancellation that came meanwhile, for the caller to raise.

    A shielded scope holds back the cancellations of anyio and trio only: `Task.cancel` and `asyncio.timeout` reach
    through it.

    Args:
        event: set by another task.
    """
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not event.is_set():
            try:
                await event.wait()
            except asyncio.CancelledError as error:
                cancelled = error
    return cancelled
