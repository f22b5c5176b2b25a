"""The mountable sub-app: the guard before everything, then the routes."""

from __future__ import annotations

import logging
from http import HTTPStatus
from inspect import isawaitable
from typing import Final, cast

from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketClose

from ..freed import reached
from .api import Api, Operations, problem
from .guard import AdminGuard

logger = logging.getLogger("ctxmiddleware.admin")


class AdminApp:
    """The admin as an ASGI app; it owns no resources and refuses everybody while no guard is configured.

    Args:
        operations: what it works on.
        guard: who may use it; None for nobody.
    """

    # What `leads_to` looks for: a middleware that would refuse a request leaves this one to the guard.
    guards_itself: Final = True

    def __init__(self, operations: Operations, guard: AdminGuard | None) -> None:
        self._guard = guard
        router = Router(Api(operations).routes, redirect_slashes=False)
        self._app = ExceptionMiddleware(router, handlers={HTTPException: _http_problem})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        reached(scope)
        if scope["type"] == "websocket":
            await WebSocketClose(1008)(scope, receive, send)
            return
        # Without one, Starlette's routes answer in plain text what they would else raise.
        scope.setdefault("app", self)
        refusal = await self._refusal(HTTPConnection(scope))
        await (refusal or self._app)(scope, receive, send)

    async def _refusal(self, connection: HTTPConnection) -> Response | None:
        if self._guard is None:
            detail = "the admin is closed: set CTX_ADMIN_TOKEN, or give ContextPlugin an admin_guard"
            return problem(403, "Forbidden", detail)
        if await self._is_let_in(self._guard, connection):
            return None
        detail = "send Authorization: Bearer <the admin's token>"
        return problem(401, "Unauthorized", detail, WWW_Authenticate="Bearer")

    async def _is_let_in(self, guard: AdminGuard, connection: HTTPConnection) -> bool:
        try:
            verdict = guard(connection)
            if isawaitable(verdict):
                verdict = await verdict
        except Exception:
            logger.exception("the admin's guard failed; the request is refused")
            return False
        # Anything but True is a refusal: a guard that forgot to await must not let everybody in.
        return verdict is True


def _http_problem(request: Request, error: Exception) -> Response:  # noqa: ARG001 - the shape of a handler
    told = cast("HTTPException", error)
    headers = {name.replace("-", "_"): value for name, value in (told.headers or {}).items()}
    return problem(told.status_code, HTTPStatus(told.status_code).phrase, told.detail, **headers)
