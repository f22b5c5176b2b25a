"""What is awaited for as long as a connection lasts."""

from __future__ import annotations

import anyio
import pytest
from starlette.types import Message

from ctxmiddleware.connection import UntilDisconnect

pytestmark = pytest.mark.anyio


class Connection:
    """Lasts until it is closed, or is broken."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.closed, self.failure = anyio.Event(), failure

    async def receive(self) -> Message:
        """Wait for the end."""
        if self.failure is not None:
            raise self.failure
        await self.closed.wait()
        return {"type": "http.disconnect"}


async def test_an_error_of_the_call_is_raised_as_it_is() -> None:
    """Not in a group of a task group, and the connection goes on."""
    error = LookupError("the call's")

    async def failing() -> None:
        raise error

    until = UntilDisconnect(Connection())
    with pytest.raises(LookupError) as raised:
        await until.wait_for(failing)
    assert raised.value is error
    assert not until.has_ended


async def test_the_end_of_the_connection_ends_the_call_and_no_other_is_made() -> None:
    """What a call would return reaches no client."""
    connection, calls = Connection(), list[str]()

    async def call() -> None:
        calls.append("begun")
        connection.closed.set()
        await anyio.sleep_forever()

    until = UntilDisconnect(connection)
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await until.wait_for(call)
    assert calls == ["begun"]


@pytest.mark.parametrize("failure", [RuntimeError("was received before"), ConnectionResetError()])
async def test_a_connection_that_cannot_be_received_from_has_ended(failure: Exception) -> None:
    """Starlette's websockets raise after their disconnect."""
    until = UntilDisconnect(Connection(failure))
    with pytest.raises(StopAsyncIteration):
        await until.wait_for(anyio.sleep_forever)
    assert until.has_ended
