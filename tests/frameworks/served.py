"""The apps that real servers are started with: they say on standard error when their plugin is opened and closed."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from ctxmiddleware import (
    BearerToken,
    UserContextMiddleware,
    current_user_context,
    get_user_context,
)

from ..asgi import no_lifespan
from ..people import TOKEN, NeverOpens, OpenedSource, plugin_of


def say(what: str) -> None:
    """Write a word to standard error."""
    print(what, file=sys.stderr, flush=True)  # noqa: T201 - the server's log is what the test reads


class Loud(OpenedSource):
    """A source that says when it is opened and closed."""

    async def __aenter__(self) -> Self:
        say("PLUGIN OPEN")
        return await super().__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        say("PLUGIN CLOSED")


async def me(request: Request) -> JSONResponse:
    """Tell who it is."""
    assert current_user_context() is get_user_context(request) is request.state.user_context
    return JSONResponse(get_user_context(request).email)


async def stream(request: Request) -> StreamingResponse:
    """Tell it in pieces."""

    async def chunks() -> AsyncIterator[str]:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
            context = current_user_context()
            yield f"{None if context is None else context.email} "

    return StreamingResponse(chunks())


async def changes(request: Request) -> StreamingResponse:
    """Stream the context, and again whenever it has changed, until the client disconnects."""

    async def chunks() -> AsyncIterator[str]:
        say("APP STREAMS")
        try:
            async for resolution in plugin.watch(get_user_context(request).email, connection=request):
                assert resolution.context is not None
                yield f"data: {resolution.context.email}\n\n"
        finally:
            say("APP STREAMED")

    return StreamingResponse(chunks(), media_type="text/event-stream")


async def live(websocket: WebSocket) -> None:
    """Echo, with the user's address."""
    context = get_user_context(websocket)
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(f"{context.email} {text}")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
    """Say when the app starts and stops."""
    say("APP STARTED")
    yield {"theirs": "kept"}
    say("APP STOPPED")


plugin = plugin_of(Loud(), admin_guard=BearerToken(TOKEN))


def _application() -> Starlette:
    routes = [Route("/me", me), Route("/stream", stream), Route("/changes", changes), WebSocketRoute("/live", live)]
    app = Starlette(routes=routes, lifespan=lifespan)
    plugin.install(app, required=True)
    return app


app = _application()
bare = UserContextMiddleware(no_lifespan, plugin=plugin_of(Loud()))
never = UserContextMiddleware(app, plugin=plugin_of(NeverOpens()))
os.environ["CTX_TTL"] = "soon"
misconfigured = UserContextMiddleware(app)
del os.environ["CTX_TTL"]


class NoExtensions:
    """Hides the host's extensions, as a host without any would."""

    def __init__(self, inner: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._inner({**scope, "extensions": {}} if scope["type"] == "websocket" else scope, receive, send)


old = NoExtensions(app)
