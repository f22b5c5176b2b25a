"""CORS preflight requests: a browser sends them without credentials, before a request to another origin."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import ASGIApp, Scope

from .destination import Routable, app_of, candidates, layers, target
from .errors import ConfigurationError

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


def answered_by(app: ASGIApp, scope: Scope, depth: int = 0) -> Literal["cors", "router"] | None:
    """Return what of an app is known to answer a preflight as such, and not by the view of another method.

    Any client can send a preflight, so it must not bypass `required`. Starlette's CORSMiddleware answers it, and routes
    that compare the method cannot run another method's view. A layer without `.app` and another framework's app cannot
    be read, so they may run anything.
    """
    if depth > _MAX_DEPTH:
        return None
    for layer in layers(app):
        if isinstance(layer, CORSMiddleware):
            return "cors"
        if isinstance(layer, Starlette):
            return answered_by(_stack_of(layer), scope, depth + 1)
        if isinstance(layer, Router):
            return _of_router(layer, scope, depth)
        if _compares_methods(layer):
            return "router"
    return None


def _stack_of(app: Starlette) -> ASGIApp:
    # Starlette builds it with the first request, which is this one.
    if app.middleware_stack is None:
        app.middleware_stack = app.build_middleware_stack()
    return app.middleware_stack


def _of_router(router: Router, scope: Scope, depth: int) -> Literal["cors", "router"] | None:
    # A router may have middlewares of its own; the innermost layer is its bound method `app`.
    for layer in layers(router.middleware_stack):
        if isinstance(layer, CORSMiddleware):
            return "cors"
        if getattr(layer, "__self__", None) is router:
            return _of_routes(router, scope, depth)
    return None


def _of_routes(router: Router, scope: Scope, depth: int) -> Literal["cors", "router"] | None:
    partial = None
    for route in candidates(router.routes):
        if route is None:
            return None
        match, child = route.matches(scope)
        if match is Match.FULL:
            return _of_route(route, {**scope, **child}, depth)
        if match is Match.PARTIAL and partial is None:
            partial = route
    if partial is not None:
        # Starlette's own route answers 405, and FastAPI's stand-in for one as well.
        return "router" if isinstance(target(partial), Route) or not isinstance(partial, BaseRoute) else None
    if getattr(router.default, "__func__", None) is Router.not_found:
        return "router"
    return answered_by(router.default, scope, depth + 1)


def _of_route(route: Routable, scope: Scope, depth: int) -> Literal["cors", "router"] | None:
    methods = getattr(route, "methods", None)
    if methods:
        return "router" if scope["method"] in methods else None
    inner = app_of(route)
    return None if inner is None else answered_by(inner, scope, depth + 1)


def _compares_methods(layer: object) -> bool:
    return isinstance(layer, type) and issubclass(layer, HTTPEndpoint) and layer.dispatch is HTTPEndpoint.dispatch
