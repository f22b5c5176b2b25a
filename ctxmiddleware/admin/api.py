"""What the admin can be asked: JSON in, JSON out."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..errors import InvalidationFailed
from .audit import Record, recorded
from .openapi import DOCUMENT
from .problem import HEADERS, problem


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
        pseudonym: returns what stands for an address in the audit log.
    """

    def __init__(self, operations: Operations, pseudonym: Callable[[str], str]) -> None:
        self._operations = operations
        self._pseudonym = pseudonym
        self.routes = [
            *_with_and_without_slash("/openapi.json", _describe, "GET"),
            *_with_and_without_slash("/stats", self._stats, "GET"),
            *_with_and_without_slash("/clear", self._clear, "POST"),
            # An address may hold a slash, which arrives decoded.
            _whole(Route("/invalidate/{email:path}", self._invalidate, methods=["POST"])),
        ]

    async def _stats(self, request: Request) -> Response:  # noqa: ARG002 - the shape of an endpoint
        return answer(self._operations.stats())

    async def _clear(self, request: Request) -> Response:
        with recorded(request.scope, "clear") as record:
            return await _done(record, self._operations.clear())

    async def _invalidate(self, request: Request) -> Response:
        email = request.path_params["email"].removesuffix("/")
        with recorded(request.scope, "invalidate", self._pseudonym(email)) as record:
            try:
                return await _done(record, self._operations.invalidate(email))
            except ValueError:
                record.outcome = "refused: no address"
                return problem(400, "there is no address: POST to /invalidate/ada@example.com")


async def _describe(request: Request) -> Response:
    return answer({**DOCUMENT, "servers": [{"url": request.scope.get("root_path") or "/"}]})


async def _done(record: Record, deed: Awaitable[object]) -> Response:
    try:
        report = await deed
    except InvalidationFailed as error:
        record.outcome = "Redis could not be told"
        return _failed(error)
    silent = len(getattr(report, "silent", ()))
    record.outcome = f"done, {silent} not confirmed" if silent else "done"
    return answer(report)


def _with_and_without_slash(path: str, endpoint: Callable[[Request], Awaitable[Response]], method: str) -> list[Route]:
    # Litestar ends the path of what is mounted in it with a slash.
    return [Route(each, endpoint, methods=[method]) for each in (path, f"{path}/")]


def _whole(route: Route) -> Route:
    # Starlette's pattern ends at a line's end, and whoever has one in the address could not be forgotten.
    route.path_regex = re.compile(route.path_regex.pattern, re.DOTALL)
    return route


def answer(value: object) -> Response:
    """Return a JSON answer that nobody keeps."""
    return Response(msgspec.json.encode(value), 200, HEADERS, media_type="application/json")


def _failed(error: InvalidationFailed) -> Response:
    """Answer an invalidation that did not reach Redis: the caller must know that others may still serve the old."""
    detail = "Redis could not be told; other instances may serve the old until it ends"
    return problem(502, detail, report=error.report)
