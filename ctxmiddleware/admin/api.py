"""What the admin can be asked: JSON in, JSON out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..errors import InvalidationFailed


class Operations(Protocol):
    """What the admin works on."""

    def stats(self) -> object:
        """Return the counters of this process."""
        ...

    async def invalidate(self, email: str) -> object:
        """Forget one user everywhere and return the report."""
        ...

    async def clear(self) -> object:
        """Forget everybody everywhere and return the report."""
        ...


class Api:
    """The admin's routes.

    Args:
        operations: what they work on.
    """

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self.routes = [
            *_with_and_without_slash("/stats", self._stats, "GET"),
            *_with_and_without_slash("/clear", self._clear, "POST"),
            # An address may hold a slash, which arrives decoded.
            Route("/invalidate/{email:path}", self._invalidate, methods=["POST"]),
        ]

    async def _stats(self, request: Request) -> Response:  # noqa: ARG002 - the shape of an endpoint
        return answer(self._operations.stats())

    async def _clear(self, request: Request) -> Response:  # noqa: ARG002 - the shape of an endpoint
        try:
            return answer(await self._operations.clear())
        except InvalidationFailed as error:
            return _failed(error)

    async def _invalidate(self, request: Request) -> Response:
        try:
            return answer(await self._operations.invalidate(request.path_params["email"].removesuffix("/")))
        except ValueError as error:
            return problem(400, "Bad Request", str(error))
        except InvalidationFailed as error:
            return _failed(error)


def _with_and_without_slash(path: str, endpoint: Callable[[Request], Awaitable[Response]], method: str) -> list[Route]:
    # Litestar ends the path of what is mounted in it with a slash.
    return [Route(each, endpoint, methods=[method]) for each in (path, f"{path}/")]


def answer(value: object, status: int = 200) -> Response:
    """Return a JSON answer that nobody keeps."""
    return Response(msgspec.json.encode(value), status, {"Cache-Control": "no-store"}, media_type="application/json")


def problem(status: int, title: str, detail: str, **headers: str) -> Response:
    """Return problem details (RFC 9457)."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    named = {"Cache-Control": "no-store", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Response(msgspec.json.encode(body), status, named, media_type="application/problem+json")


def _failed(error: InvalidationFailed) -> Response:
    """Answer an invalidation that did not reach Redis: the caller must know that others may still serve the old."""
    return answer(
        {"error": "Redis could not be told; other instances may serve the old until it ends", "report": error.report},
        502,
    )
