"""A websocket that knows who is on it, is told when that changes, and is closed when it is revoked."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import anyio
from starlette.applications import Starlette
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ctxmiddleware import ContextError, ContextPlugin, Identity, UserContext, get_user_context

from .demo.tokens import BearerTokens

_POLICY_VIOLATION = 1008
_TRY_AGAIN_LATER = 1013


class Seat:
    """Somebody's place in the room of a region.

    Args:
        plugin: tells of changes.
        websocket: the connection.
        context: who it is, kept up to date for as long as the connection lasts.
    """

    def __init__(self, plugin: ContextPlugin[UserContext], websocket: WebSocket, context: UserContext) -> None:
        self._plugin = plugin
        self._websocket = websocket
        self._region = websocket.path_params["region"]
        self.context = context

    def may_take(self, context: UserContext | None) -> bool:
        """Return whether somebody may be in this room; an unknown or inactive user may not."""
        if context is None or not self._plugin.is_active(context):
            return False
        return any(each.code == self._region for each in context.regions)

    async def answer(self) -> None:
        """Answer what is said, until the client goes."""
        async for text in self._websocket.iter_text():
            name = self.context.employee.full_name
            await self._websocket.send_json({"from": name, "room": self._region, "text": text})

    async def keep(self) -> None:
        """Tell who it is at first and after each change, and close when access has ended or nobody can say so."""
        user = self._websocket.user
        # It ends by itself when the token does.
        identity = Identity(user.email, expires_at=user.expires_at)
        try:
            async for resolution in self._plugin.watch(identity):
                if resolution.context is None or not self.may_take(resolution.context):
                    break
                self.context = resolution.context
                await self._websocket.send_json({"you": _shown(self.context)})
        except ContextError:
            await self._websocket.close(_TRY_AGAIN_LATER, "Nobody can say whether you may be here")
        else:
            await self._websocket.close(_POLICY_VIOLATION, "You may not be here any more")


async def room(websocket: WebSocket, *, plugin: ContextPlugin[UserContext]) -> None:
    """Serve one connection: rooms are regions, and nobody hears of another's."""
    # As it was when the connection came; without a context it was refused before this.
    seat = Seat(plugin, websocket, get_user_context(websocket))
    if not seat.may_take(seat.context):
        await websocket.close(_POLICY_VIOLATION, "This region is not yours")
        return
    await websocket.accept()
    async with anyio.create_task_group() as tasks:

        async def keep() -> None:
            # A client that goes while it is told something has gone, and that is all.
            with suppress(WebSocketDisconnect):
                await seat.keep()
            tasks.cancel_scope.cancel()

        tasks.start_soon(keep)
        await seat.answer()
        tasks.cancel_scope.cancel()


def create_app(plugin: ContextPlugin[UserContext], token_secret: str) -> Starlette:
    """Build the app.

    Args:
        plugin: resolves contexts.
        token_secret: what tokens are signed with.
    """
    app = Starlette(routes=[WebSocketRoute("/rooms/{region}", partial(room, plugin=plugin))])
    plugin.install(app, required=True)
    app.add_middleware(AuthenticationMiddleware, backend=BearerTokens(token_secret))
    return app


def _shown(context: UserContext) -> dict[str, object]:
    employee = context.employee
    regions = [region.code for region in context.regions]
    return {"name": employee.full_name, "role": employee.role, "title": employee.job_title, "regions": regions}
