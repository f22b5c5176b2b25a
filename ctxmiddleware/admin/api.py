"""What the admin can be asked: JSON in, JSON out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from ..bounded import read_limited
from ..errors import InvalidationFailed
from ..principal import Identity
from ..whole_path import whole
from .audit import Record, recorded
from .openapi import DOCUMENT
from .problem import HEADERS, problem

MAX_BODY: Final = 1024 * 1024
_NO_USER: Final = (
    'the request names no user: POST {"email": "ada@example.com"} or {"subject": "...", "tenant": "..."}, or a list of '
    "these, to /invalidate"
)


class Operations(Protocol):
    """What the admin works on."""

    def stats(self) -> object:
        """Return the counters of this process."""
        ...

    async def invalidate(self, users: Identity | Sequence[Identity], /, *, or_clear: bool = False) -> object:
        """Forget one user, or several, everywhere and return the report.

        Raises:
            ValueError: they are too many, and are not to become a clear.
        """
        ...

    async def clear(self) -> object:
        """Forget everybody everywhere and return the report."""
        ...


class _User(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    email: str | msgspec.UnsetType = msgspec.UNSET
    subject: str | msgspec.UnsetType = msgspec.UNSET
    tenant: str = ""


class Api:
    """The admin's routes.

    Args:
        operations: what they work on.
        pseudonym: returns what stands for a user in the audit log.
    """

    def __init__(self, operations: Operations, pseudonym: Callable[[Identity], str]) -> None:
        self._operations = operations
        self._pseudonym = pseudonym
        self.routes = [
            *_with_and_without_slash("/openapi.json", _describe, "GET"),
            *_with_and_without_slash("/stats", self._stats, "GET"),
            *_with_and_without_slash("/clear", self._clear, "POST"),
            *_with_and_without_slash("/invalidate", self._invalidate_body, "POST"),
            # An address may hold a slash, which arrives decoded.
            whole(Route("/invalidate/{email:path}", self._invalidate_path, methods=["POST"])),
        ]

    async def _stats(self, request: Request) -> Response:  # noqa: ARG002 - the shape of an endpoint
        return answer(self._operations.stats())

    async def _clear(self, request: Request) -> Response:
        with recorded(request.scope, "clear") as record:
            return await _done(record, self._operations.clear())

    async def _invalidate_path(self, request: Request) -> Response:
        email: str = request.path_params["email"].removesuffix("/")
        try:
            identity = Identity(email)
        except ValueError:
            return _no_user(request.scope)
        return await self._invalidate(request.scope, identity)

    async def _invalidate_body(self, request: Request) -> Response:
        try:
            identities = _identities_in(await read_limited(request.stream(), MAX_BODY) or b"")
        except (msgspec.MsgspecError, ValueError, RecursionError, ClientDisconnect):
            return _no_user(request.scope)
        or_clear = request.query_params.getlist("or_clear") or ["false"]
        if or_clear not in (["true"], ["false"]):
            return problem(400, "or_clear in the query is true or false")
        if isinstance(identities, Identity):
            return await self._invalidate(request.scope, identities)
        with recorded(request.scope, "invalidate", f"{len(identities)} users") as record:
            try:
                return await _done(record, self._operations.invalidate(identities, or_clear=or_clear == ["true"]))
            except ValueError as error:
                record.outcome = "refused: too many users"
                return problem(400, f"{error} (or_clear=true in the query)")

    async def _invalidate(self, scope: Scope, identity: Identity) -> Response:
        with recorded(scope, "invalidate", self._pseudonym(identity)) as record:
            return await _done(record, self._operations.invalidate(identity))


def _identities_in(body: bytes) -> Identity | list[Identity]:
    found = msgspec.json.decode(body, type=_User | list[_User])
    if isinstance(found, _User):
        return _identity_of(found)
    if not found:
        raise ValueError("no user is named")
    return [_identity_of(each) for each in found]


def _identity_of(user: _User) -> Identity:
    if user.email is msgspec.UNSET:
        return Identity(subject=user.subject or None, tenant=user.tenant)
    if user.subject is not msgspec.UNSET:
        raise ValueError("two users are named")
    return Identity(user.email, tenant=user.tenant)


def _no_user(scope: Scope) -> Response:
    with recorded(scope, "invalidate", "no user") as record:
        record.outcome = "refused: no user"
    return problem(400, _NO_USER)


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
    return [whole(Route(each, endpoint, methods=[method])) for each in (path, f"{path}/")]


def answer(value: object) -> Response:
    """Return a JSON answer that nobody keeps."""
    return Response(msgspec.json.encode(value), 200, HEADERS, media_type="application/json")


def _failed(error: InvalidationFailed) -> Response:
    """Answer an invalidation that did not reach Redis: the caller must know that others may still serve the old."""
    detail = "Redis could not be told; other instances may serve the old until it ends"
    return problem(502, detail, report=error.report)
