"""How a request is refused, on http and on websockets."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Literal, TypeAlias, cast

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from .accessors import Refusal

Reason: TypeAlias = Refusal | Literal["unavailable", "failed", "rejected"]

OnRefusal: TypeAlias = Callable[[HTTPConnection, Reason], "Response | Awaitable[Response | None] | None"]

RETRY_AFTER: Final = 1.0

# What the answer says by itself.
_OURS: Final = frozenset({"cache-control", "content-length", "content-type"})
_WITHOUT_BODY: Final = frozenset({204, 205, 304})

# A close before the handshake ends is a 403 to the client; the code is for hosts that tell it apart.
_CLOSE_CODES: Final = {401: 1008, 403: 1008, 503: 1013, 500: 1011}


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a request is refused, and how it is told.

    Args:
        reason: the word `on_refusal` is called with.
        status: the HTTP status.
        headers: further headers of the answer.
        detail: what an `identify` of the application's own tells the caller.
    """

    reason: Reason
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    detail: object = None

    def response(self) -> Response:
        """Return the answer as problem details (RFC 9457), which tell the caller nothing about the inside."""
        known = {status.value: status.phrase for status in HTTPStatus}
        title = known.get(self.status, "Refused")
        body: dict[str, object] = {
            "type": "about:blank", "title": title, "status": self.status, "reason": self.reason
        }  # fmt: skip
        if self.detail is not None:
            body["detail"] = self.detail
        headers = self.further_headers
        # The next one who asks may be somebody else.
        headers["Cache-Control"] = "no-store"
        if self.status in _WITHOUT_BODY:
            return Response(status_code=self.status, headers=headers)
        return JSONResponse(body, self.status, headers, media_type="application/problem+json")

    @property
    def further_headers(self) -> dict[str, str]:
        """The headers besides those that each answer sets by itself."""
        return {name: value for name, value in self.headers.items() if name.lower() not in _OURS}


def denial_for(reason: Reason) -> Denial:
    """Return the refusal of a request that has no context and needs one."""
    if reason in ("unknown", "inactive"):
        return Denial(reason, 403)
    # Whoever is identified is not told to sign in because something failed.
    if reason == "unavailable":
        return unavailable(None)
    if reason == "failed":
        return FAILED
    # The answer of `identify` is on the scope; without it a 401 would wrongly suggest to sign in.
    if reason == "rejected":
        return Denial(reason, 403)
    return Denial(reason, 401, {"WWW-Authenticate": "Bearer"})


def unavailable(retry_after: float | None) -> Denial:
    """Return the refusal of an identified request whose context nobody can tell now.

    Args:
        retry_after: seconds after which another try is worth it.
    """
    if retry_after is None or not math.isfinite(retry_after):
        retry_after = RETRY_AFTER
    seconds = max(1, math.ceil(retry_after))
    return Denial("unavailable", 503, {"Retry-After": str(seconds)})


def rejected(error: HTTPException) -> Denial:
    """Return the refusal that `identify` has raised, with its status, headers and detail."""
    return Denial("rejected", error.status_code, error.headers or {}, _encodable(error.detail))


def _encodable(detail: object) -> object:
    try:
        json.dumps(detail, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError):
        return str(detail).encode(errors="replace").decode()
    return detail


def denial_on(scope: Scope, key: str) -> Denial | None:
    """Return the refusal that a middleware has found due for a request, also where it was exempt from it.

    Args:
        scope: of the request.
        key: the scope key of the plugin.
    """
    denial = scope.get(denial_key(key))
    return denial if isinstance(denial, Denial) else None


def denial_key(key: str) -> str:
    """Return where the refusal is on scopes."""
    return f"{key}_denial"


FAILED: Final = Denial("failed", 500)


def bad_credential(error: str | None) -> Denial:
    """Return the refusal of a request whose credential is no good.

    Args:
        error: the code of RFC 6750, section 3.1; None where no bearer token was sent.
    """
    return Denial("anonymous", 401, {"WWW-Authenticate": "Bearer" if error is None else f'Bearer error="{error}"'})


def no_user(detail: str) -> Denial:
    """Return the refusal of a request whose credential is good and names no user.

    Args:
        detail: what is missing, for the caller: a token renewed would be the same.
    """
    return Denial("unknown", 403, detail=detail)


async def refuse(denial: Denial, response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with a response; a websocket by the denial extension where the host has it, else by a close."""
    if scope["type"] == "http":
        await response(scope, receive, send)
    elif "websocket.http.response" in (scope.get("extensions") or {}):
        await response(scope, receive, _as_denial(send))
    else:
        await WebSocketClose(_CLOSE_CODES.get(denial.status, 1008))(scope, receive, send)


def _as_denial(send: Send) -> Send:
    async def send_denial(message: Message) -> None:
        kind = cast("str", message["type"])
        if kind.startswith("http."):
            message = {**message, "type": f"websocket.{kind}"}
        await send(message)

    return send_denial
