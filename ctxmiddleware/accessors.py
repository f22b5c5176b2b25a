"""How an application reaches the context of the request it is answering."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final, Literal, TypeAlias, cast

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Scope

from .errors import ContextError, MiddlewareMissing
from .model import UserContext
from .override import in_force

Refusal: TypeAlias = Literal["anonymous", "unknown", "inactive", "excluded"]

SCOPE_KEY: Final = "user_context"

_DETAILS: Final[Mapping[Refusal, str]] = {
    "anonymous": "Not authenticated",
    "excluded": "Not authenticated",
    "unknown": "This user is not known here",
    "inactive": "This user is not active",
}


class NotAuthenticated(HTTPException, ContextError):
    """A context was asked for on an anonymous request: a 401 with `WWW-Authenticate`."""

    def __init__(self) -> None:
        super().__init__(401, _DETAILS["anonymous"], {"WWW-Authenticate": "Bearer"})


class NotPermitted(HTTPException, ContextError):
    """A context was asked for and the user, though signed in, has none: a 403.

    Args:
        reason: `"unknown"` or `"inactive"`.
    """

    def __init__(self, reason: Refusal) -> None:
        self.reason = reason
        super().__init__(403, _DETAILS[reason])


def scope_key(name: str) -> str:
    """Return the key under which a plugin of that name writes its context on scopes and states."""
    return SCOPE_KEY if name == "default" else f"{SCOPE_KEY}:{name}"


def require(scope: Scope, key: str) -> object:
    """Return the context under a key.

    Raises:
        NotAuthenticated: the request is anonymous.
        NotPermitted: the user is signed in but unknown or not active.
        MiddlewareMissing: no middleware has seen the request.
    """
    try:
        context = scope[key]
    except KeyError:
        raise MiddlewareMissing(
            f"scope[{key!r}] is not set: add UserContextMiddleware to the app that serves this request"
        ) from None
    if context is None:
        raise _refused(scope.get(f"{key}_refusal", "anonymous"))
    return context


def get_user_context(connection: HTTPConnection) -> UserContext:
    """Return the signed-in user's context; works as it stands in FastAPI's `Depends`.

    Args:
        connection: the request or websocket being answered.

    Raises:
        NotAuthenticated: the request is anonymous; answered as 401.
        NotPermitted: the user is signed in but unknown or not active; answered as 403.
        MiddlewareMissing: no UserContextMiddleware has seen the request.
    """
    return cast("UserContext", require(connection.scope, SCOPE_KEY))


def user_context_from_scope(scope: Scope) -> UserContext | None:
    """Return the context on an ASGI scope, or None where the request has none."""
    return cast("UserContext | None", scope.get(SCOPE_KEY))


def current_user_context() -> UserContext | None:
    """Return the context of the request this task is answering, or None where there is none."""
    return cast("UserContext | None", in_force(context_variable(SCOPE_KEY).get()))


# One for each scope key, made once: a ContextVar is never freed.
_variables: dict[str, ContextVar[Any]] = {}


def context_variable(key: str) -> ContextVar[Any]:
    """Return the context variable that carries the context written under a scope key."""
    variable = _variables.get(key)
    return _variables.setdefault(key, ContextVar(key, default=None)) if variable is None else variable


def _refused(reason: Refusal) -> HTTPException:
    return NotPermitted(reason) if reason in ("unknown", "inactive") else NotAuthenticated()
