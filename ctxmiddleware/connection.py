"""The end of a client's connection, beside something else that is awaited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol, TypeVar

import anyio

T = TypeVar("T")

_DISCONNECTS: Final = ("websocket.disconnect", "http.disconnect")


class Connection(Protocol):
    """A websocket or a request: Starlette's, FastAPI's, Litestar's, or any other with ASGI's `receive`."""

    @property
    def receive(self) -> Callable[[], Awaitable[MutableMapping[str, Any]]]:
        """What awaits the next ASGI message."""
        ...


class UntilDisconnect:
    """Awaits something for as long as a connection lasts.

    Messages of the client are received and dropped meanwhile, because a disconnect is the last of them.

    Args:
        connection: is received from only while something is awaited.

    Raises:
        TypeError: nothing can be received from the connection.
    """

    def __init__(self, connection: Connection) -> None:
        if not callable(getattr(connection, "receive", None)):
            raise TypeError(
                f"connection was {type(connection).__name__}, which has no receive(): give the WebSocket or the Request"
            )
        self._connection = connection
        self.has_ended = False

    async def wait_for(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what a call returns.

        Raises:
            StopAsyncIteration: the connection has ended before.
        """
        found: T | None = None
        failure: Exception | None = None
        if not self.has_ended:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen, tasks.cancel_scope)
                try:
                    found = await call()
                # Out of a task group it would come in a group.
                except Exception as error:  # noqa: BLE001 - raised below
                    failure = error
                tasks.cancel_scope.cancel()
        if self.has_ended:
            raise StopAsyncIteration
        if failure is not None:
            raise failure
        return found  # type: ignore[return-value]  # the call has returned it

    async def _listen(self, scope: anyio.CancelScope) -> None:
        try:
            while (await self._connection.receive()).get("type") not in _DISCONNECTS:
                pass
        except (RuntimeError, OSError):
            pass  # Starlette's websockets raise where a disconnect was received before
        self.has_ended = True
        scope.cancel()
