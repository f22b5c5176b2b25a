"""A websocket that knows who is on it: rooms are regions, and nobody hears of another's."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from ctxmiddleware import ContextPlugin, UserContext, get_user_context

from .demo.tokens import BearerTokens

_POLICY_VIOLATION = 1008


async def room(websocket: WebSocket) -> None:
    """Answer what is said in a region's room, for as long as the connection lasts."""
    # Resolved once, when the connection came; without a context it was refused before this.
    context = get_user_context(websocket)
    region = websocket.path_params["region"]
    if all(each.code != region for each in context.regions):
        await websocket.close(_POLICY_VIOLATION, "This region is not yours")
        return
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_json({"from": context.employee.full_name, "room": region, "text": text})


def create_app(plugin: ContextPlugin[UserContext], token_secret: str) -> Starlette:
    """Build the app.

    Args:
        plugin: resolves contexts.
        token_secret: what tokens are signed with.
    """
    app = Starlette(routes=[WebSocketRoute("/rooms/{region}", room)])
    plugin.install(app, required=True)
    app.add_middleware(AuthenticationMiddleware, backend=BearerTokens(token_secret))
    return app
