"""Whether a watch ends with the connection it belongs to, and what becomes of the connection's messages and errors."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.requests import HTTPConnection, Request
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketState

from ctxmiddleware import ContextPlugin, Resolution, SourceUnavailable, UserContext
from ctxmiddleware.testing import StaticSource
from tests.asgi import http_scope, websocket_scope
from tests.people import ADA, DOWN, context_of, plugin_of
from tests.waiting import PATIENCE, eventually_async

pytestmark = pytest.mark.anyio


class Client:
    """The other end of a connection: what it sends is received, one message after the other."""

    def __init__(self, *messages: Message) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[Message](math.inf)
        for message in messages:
            self.send(message)

    def send(self, message: Message) -> None:
        """Send one message."""
        self._send.send_nowait(message)

    async def receive(self) -> Message:
        """Return the next one."""
        return await self._receive.receive()

    def close(self) -> None:
        """Close both ends of the test's stream."""
        self._send.close()
        self._receive.close()


async def ignore(message: Message) -> None:
    """Take what the application sends."""


@asynccontextmanager
async def connected(kind: str) -> AsyncIterator[tuple[Client, Any]]:
    """Return the client and the application's end of an accepted websocket, or of a request."""
    if kind == "websocket":
        client = Client({"type": "websocket.connect"})
        connection: Any = WebSocket(websocket_scope(), client.receive, ignore)
        await connection.accept()
    else:
        client = Client({"type": "http.request", "body": b"", "more_body": False})
        connection = Request(http_scope(), client.receive, ignore)
    try:
        yield client, connection
    finally:
        client.close()


def waiting(plugin: ContextPlugin[UserContext]) -> int:
    """Return how many wait for news."""
    return len(plugin._assembly.cache.watchers)


class Watching:
    """A task that watches Ada for a connection."""

    def __init__(self, plugin: ContextPlugin[UserContext], connection: Any) -> None:
        self.changes = plugin.watch(ADA, connection=connection)
        self.resolutions: list[Resolution[UserContext]] = []
        self.is_over = False

    async def run(self) -> None:
        """Watch to the end."""
        async for resolution in self.changes:
            self.resolutions.append(resolution)
        self.is_over = True


@pytest.mark.parametrize("kind", ["websocket", "http"])
async def test_a_watch_ends_with_its_connection(kind: str) -> None:
    """Messages of the client are dropped, and a change is delivered meanwhile."""
    source = StaticSource[UserContext]({ADA: context_of(ADA)})
    async with plugin_of(source) as plugin, connected(kind) as (client, connection), anyio.create_task_group() as tasks:
        watching = Watching(plugin, connection)
        tasks.start_soon(watching.run)
        # It waits before its first look, too.
        await eventually_async(lambda: len(watching.resolutions) == waiting(plugin) == 1)
        client.send({"type": "websocket.receive", "text": "hello"} if kind == "websocket" else {"type": "http.request"})
        source._contexts[ADA] = context_of(ADA, number=2)
        await plugin.invalidate(ADA)
        await eventually_async(lambda: len(watching.resolutions) == 2)
        assert not watching.is_over
        client.send({"type": f"{kind}.disconnect"})
        await eventually_async(lambda: watching.is_over)
        assert waiting(plugin) == 0
        assert kind == "http" or connection.client_state is WebSocketState.DISCONNECTED


@pytest.mark.parametrize("kind", ["websocket", "http"])
async def test_without_a_connection_it_stays(kind: str) -> None:
    """As a handler does whose client has gone, until the user changes."""
    async with plugin_of() as plugin, connected(kind) as (client, _), anyio.create_task_group() as tasks:
        watching = Watching(plugin, None)
        tasks.start_soon(watching.run)
        client.send({"type": f"{kind}.disconnect"})
        await eventually_async(lambda: waiting(plugin) == 1)
        await anyio.wait_all_tasks_blocked()
        assert not watching.is_over
        tasks.cancel_scope.cancel()


async def test_a_websocket_that_has_ended_before_ends_it_at_once() -> None:
    """Starlette raises where a disconnect was received by the handler itself."""
    async with plugin_of() as plugin, connected("websocket") as (client, websocket):
        client.send({"type": "websocket.disconnect", "code": 1000})
        await websocket.receive()
        with anyio.fail_after(PATIENCE):
            for _ in range(2):
                assert [each async for each in plugin.watch(ADA, connection=websocket)] == []


async def test_errors_come_as_they_are() -> None:
    """And not in a group; the watch may be asked again."""
    async with plugin_of() as plugin, connected("websocket") as (_, websocket):
        changes = plugin.watch(DOWN, connection=websocket)
        for _ in range(2):
            with pytest.raises(SourceUnavailable):
                await anext(changes)


async def test_a_cancelled_handler_leaves_nothing_behind() -> None:
    """A server that ends it by a cancellation."""
    async with plugin_of() as plugin, connected("websocket") as (_, websocket):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Watching(plugin, websocket).run)
            await eventually_async(lambda: waiting(plugin) == 1)
            tasks.cancel_scope.cancel()
        assert waiting(plugin) == 0


@pytest.mark.parametrize("connection", [HTTPConnection(http_scope()), object(), "websocket"])
async def test_what_cannot_be_received_from_is_refused(connection: Any) -> None:
    """With what to give instead."""
    with pytest.raises(TypeError, match="give the WebSocket or the Request"):
        plugin_of().watch(ADA, connection=connection)
