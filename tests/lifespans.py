"""Apps that do all that apps do with a lifespan."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.types import Receive, Scope, Send

from ctxmiddleware import UserContextMiddleware

from .people import OpenedSource, plugin_of

App = Callable[[Scope, Receive, Send], Awaitable[None]]


def wrapped(app: App, source: OpenedSource) -> UserContextMiddleware:
    """Return an app in the middleware, its plugin over this source."""
    return UserContextMiddleware(app, plugin=plugin_of(source))


async def raises_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    """Raise on the scope's type, as Django does."""
    raise ValueError(f"cannot handle {scope['type']}")


async def asserts(scope: Scope, receive: Receive, send: Send) -> None:
    """Assert the scope's type, as the simplest apps do."""
    assert scope["type"] == "http"


async def returns_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    """Return without a word."""


async def receives_then_raises(scope: Scope, receive: Receive, send: Send) -> None:
    """Take the request to start, and then raise."""
    await receive()
    raise RuntimeError("not for me")


async def receives_then_returns(scope: Scope, receive: Receive, send: Send) -> None:
    """Take the request to start, and then return."""
    await receive()


async def completes_then_returns(scope: Scope, receive: Receive, send: Send) -> None:
    """Start, and not wait for the shut-down."""
    await receive()
    await send({"type": "lifespan.startup.complete"})


async def completes_unasked_then_returns(scope: Scope, receive: Receive, send: Send) -> None:
    """Say that it has started without having been asked."""
    await send({"type": "lifespan.startup.complete"})


async def receives_both_then_returns(scope: Scope, receive: Receive, send: Send) -> None:
    """Take both requests and answer only the first."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()


RAISES = [raises_at_once, asserts, receives_then_raises]


RETURNS = [
    returns_at_once,
    receives_then_returns,
    completes_then_returns,
    completes_unasked_then_returns,
    receives_both_then_returns,
]
