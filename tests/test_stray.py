"""Whether a cancellation that comes out of an awaited task is told from one of the task that awaits."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from ctxmiddleware.stray import is_stray

pytestmark = [pytest.mark.anyio, pytest.mark.trio_branches]


async def test_a_cancellation_of_this_task_is_not_stray() -> None:
    """On no event loop."""
    found: list[bool] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as error:
            found.append(is_stray(error))
            raise
    assert found == [False]


async def test_another_error_is_not_stray() -> None:
    """It is no cancellation."""
    assert not is_stray(ValueError())


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_cancellation_of_an_awaited_task_is_stray() -> None:
    """On asyncio it is raised where the task is awaited."""
    other = asyncio.ensure_future(asyncio.sleep(3600))
    asyncio.get_running_loop().call_soon(other.cancel)
    with pytest.raises(asyncio.CancelledError) as raised:
        await other
    assert is_stray(raised.value)
