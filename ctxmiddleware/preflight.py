"""CORS preflight requests: a browser sends them without credentials, before a request to another origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.routing import Match, Router
from starlette.types import ASGIApp, Message, Scope

from .destination import (
    Routable,
    RouteUnreadable,
    app_of,
    as_read_by,
    attribute,
    handler_of,
    has_late_routes,
    layers,
    match_of,
)
from .errors import ConfigurationError
from .known_layers import (
    answers_errors_as_usual,
    has_no_options,
    is_app,
    is_cors,
    is_handled,
    is_router,
    is_routing_of,
    passes_on,
    stack_of,
)
from .unreadable import report_unreadable

Unreadable: TypeAlias = Literal["refuse", "pass"]

# An app may be mounted in itself.
_MAX_DEPTH: Final = 50


def checked_preflight(value: object) -> Unreadable:
    """Return what happens to the preflights of an app whose routing cannot be read.

    Raises:
        ConfigurationError: it is neither `"refuse"` nor `"pass"`.
    """
    for allowed in get_args(Unreadable):
        if value == allowed:
            return allowed  # type: ignore[no-any-return]  # one of the literals
    raise ConfigurationError(
        f"preflight was {value!r}; allowed are 'refuse', which treats preflights as any other request where the app's "
        "routing cannot be read, and 'pass', which passes them to the app"
    )


def is_preflight(scope: Scope) -> bool:
    """Return whether this is a preflight request as the Fetch standard has it; a plain OPTIONS is none."""
    if scope["type"] != "http" or scope.get("method") != "OPTIONS":
        return False
    headers = Headers(scope=scope)
    return bool(headers.get("origin")) and bool(headers.get("access-control-request-method"))


@dataclass(frozen=True, slots=True)
class Answered:
    """The part of an app that is known to answer a preflight without a view.

    Args:
        by: a CORSMiddleware, or a router.
        endpoint: on the scope once the router has routed the request; None where no route matches.
    """

    by: Literal["cors", "router"]
    endpoint: object = None

    def begins_with(self, message: Message, scope: Scope) -> bool:
        """Return whether a message begins this answer.

        Args:
            message: the first of an answer.
            scope: of the request, as the app leaves it.
        """
        if self.by == "cors":
            names = {bytes(name).lower() for name, _ in message.get("headers", ())}
            return b"access-control-allow-methods" in names
        return "router" in scope and scope.get("method") == "OPTIONS" and scope.get("endpoint") is self.endpoint


def answered_by(app: ASGIApp, scope: Scope) -> Answered | None:
    """Return the part of an app that is known to answer a preflight as such, and not by a view.

    Any client can send a preflight, so it must not bypass `required`. Starlette's CORSMiddleware answers it, and routes
    that compare the method run no view. A view for OPTIONS, a layer that is not known, and another framework's app may
    answer with anything.
    """
    # Headers may be read once only; this makes them a list before a copy of the scope uses them up.
    Headers(scope=scope)
    try:
        return _of_app(app, scope, 0)
    except Exception as error:  # noqa: BLE001 - raised on, it would be an answer in the place of the refusal that is due
        report_unreadable(error)
        return None


def _of_app(app: object, scope: Scope, depth: int) -> Answered | None:
    if depth > _MAX_DEPTH:
        return None
    for layer in layers(app):
        if is_cors(layer):
            return Answered("cors")
        if not answers_errors_as_usual(layer):
            answered = _of_app(attribute(layer, "app"), scope, depth + 1)
            return answered if answered is not None and answered.by == "cors" else None
        if is_app(layer) and isinstance(layer, Starlette):
            return _of_app(stack_of(layer), as_read_by(layer, scope), depth + 1)
        if is_router(layer) and isinstance(layer, Router):
            return _of_router(layer, scope, depth)
        if has_no_options(layer):
            return Answered("router", scope.get("endpoint"))
        if not passes_on(layer):
            return None
    return None


def _of_router(router: Router, scope: Scope, depth: int) -> Answered | None:
    # A router may have middlewares of its own; the innermost layer is its bound method `app`.
    for layer in layers(router.middleware_stack):
        if is_cors(layer):
            return Answered("cors")
        if is_routing_of(router, layer):
            return _of_routes(router, scope, depth)
        if not passes_on(layer) or not answers_errors_as_usual(layer):
            return None
    return None


def _of_routes(router: Router, scope: Scope, depth: int) -> Answered | None:
    try:
        found = match_of(router.routes, scope)
    except RouteUnreadable:
        return None
    if found is not None:
        match, route, continued = found
        return _of_route(match, route, continued, depth) if is_handled(handler_of(route)) else None
    if has_late_routes(router):
        return None
    if getattr(router.default, "__func__", None) is Router.not_found:
        return Answered("router", scope.get("endpoint"))
    return _of_app(router.default, scope, depth + 1)


def _of_route(match: Match, route: Routable, scope: Scope, depth: int) -> Answered | None:
    if match is Match.PARTIAL:
        # Starlette's own route answers 405, and FastAPI's as well.
        return Answered("router", scope.get("endpoint"))
    if getattr(route, "methods", None):
        return None  # a view for OPTIONS, which may be that of other methods too
    inner = app_of(route)
    return None if inner is None else _of_app(inner, scope, depth + 1)
