"""The mountable sub-app: the door before everything, then the routes."""

from __future__ import annotations

from typing import Final, cast

from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketClose

from ..freed import reached
from ..pseudonym import Pseudonyms
from ..refusals import uncount
from .api import Api, Operations
from .attempts import Attempts
from .door import Door
from .guard import AdminGuard
from .problem import problem
from .rule import PLUGIN_KEY


class AdminApp:
    """The admin as an ASGI app; it owns no resources and refuses everybody while no guard is configured.

    Args:
        operations: what it works on.
        guard: who may use it; None for nobody.
        pseudonyms: what stands for users in the audit log.
        attempts: who has failed how often to get in.
    """

    # What `leads_to` looks for: a middleware that would refuse a request leaves this one to the guard.
    guards_itself: Final = True

    def __init__(
        self,
        operations: Operations,
        guard: AdminGuard | None,
        pseudonyms: Pseudonyms | None = None,
        attempts: Attempts | None = None,
    ) -> None:
        self._operations = operations
        named = (pseudonyms or Pseudonyms()).of
        self._door = Door(guard, named, attempts)
        self._routes = Api(operations, named).routes
        router = Router(self._routes, redirect_slashes=False)
        self._app = ExceptionMiddleware(router, handlers={HTTPException: _http_problem})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        reached(scope)
        uncount(scope)
        if scope["type"] == "websocket":
            await WebSocketClose(1008)(scope, receive, send)
            return
        # Without one, Starlette's routes answer in plain text what they would else raise.
        scope.setdefault("app", self)
        scope[PLUGIN_KEY] = self._operations
        refusal = await self._door.refusal(HTTPConnection(scope))
        await (refusal or self._app)(scope, receive, send)


def _http_problem(request: Request, error: Exception) -> Response:  # noqa: ARG001 - the shape of a handler
    told = cast("HTTPException", error)
    headers = {name.replace("-", "_"): value for name, value in (told.headers or {}).items()}
    return problem(told.status_code, told.detail, **headers)
