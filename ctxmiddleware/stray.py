"""Whether a cancellation is meant for this task, or slipped out of something it awaited."""

from __future__ import annotations

import asyncio

import anyio


def is_stray(error: BaseException) -> bool:
    """Return whether an error is a cancellation that nobody asked this task to end with.

    Whoever awaits a task that somebody else cancels gets that task's cancellation. On trio there is no such thing.

    Args:
        error: what was caught in this task.
    """
    if not isinstance(error, anyio.get_cancelled_exc_class()):
        return False
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and not task.cancelling()
