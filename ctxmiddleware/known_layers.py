"""ASGI layers whose code is known to pass a request on as it is, so that what is inside of them can be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from .destination import code_of, layers

_CORS: Final = ("starlette.middleware.cors", "CORSMiddleware.__call__")
_APPS: Final = frozenset(
    {("starlette.applications", "Starlette.__call__"), ("fastapi.applications", "FastAPI.__call__")}
)
_LITESTAR: Final = ("litestar.app", "Litestar.__call__")
_ROUTERS: Final = frozenset({("starlette.routing", "Router.app"), ("fastapi.routing", "APIRouter.app")})
_ROUTER_CALL: Final = ("starlette.routing", "Router.__call__")
_HANDLES: Final = frozenset(
    {
        ("starlette.routing", "Route.handle"),
        ("starlette.routing", "Mount.handle"),
        ("starlette.routing", "Host.handle"),
        ("fastapi.routing", "APIRoute.handle"),
    }
)
_EXCEPTIONS: Final = ("starlette.middleware.exceptions", "ExceptionMiddleware.__call__")
_ERROR_HANDLERS: Final = frozenset(
    {
        ("starlette.middleware.exceptions", "ExceptionMiddleware.http_exception"),
        ("fastapi.exception_handlers", "http_exception_handler"),
    }
)
# They change neither path nor method, and the answers of their own are no view's.
_PASSING: Final = frozenset(
    {
        ("starlette.middleware.errors", "ServerErrorMiddleware.__call__"),
        _EXCEPTIONS,
        ("starlette.middleware.body_limit", "RequestBodyLimitMiddleware.__call__"),
        ("starlette.middleware.gzip", "GZipMiddleware.__call__"),
        ("starlette.middleware.httpsredirect", "HTTPSRedirectMiddleware.__call__"),
        ("starlette.middleware.opentelemetry", "OpenTelemetryMiddleware.__call__"),
        ("starlette.middleware.sessions", "SessionMiddleware.__call__"),
        ("starlette.middleware.trustedhost", "TrustedHostMiddleware.__call__"),
        ("fastapi._body_limit", "AppBodyLimitMiddleware.__call__"),
        ("fastapi._body_limit", "_BodyLimitExceptionMiddleware.__call__"),
        ("fastapi.middleware.asyncexitstack", "AsyncExitStackMiddleware.__call__"),
        ("fastapi.telemetry._asgi", "ExceptionTelemetryMiddleware.__call__"),
        ("uvicorn.middleware.proxy_headers", "ProxyHeadersMiddleware.__call__"),
        ("ctxmiddleware.middleware", "UserContextMiddleware.__call__"),
        _CORS,
        _ROUTER_CALL,
        *_APPS,
    }
)


def _call_of(layer: object) -> tuple[object, object]:
    return code_of(getattr(type(layer), "__call__", None))  # noqa: B004 - its code is compared, not called


def passes_on(layer: object) -> bool:
    """Return whether a layer hands each request on to what is inside of it, unless it answers without a view."""
    return _call_of(layer) in _PASSING


def answers_errors_as_usual(layer: object) -> bool:
    """Return whether a layer answers 404 and 405 without a handler of the application's, which may run anything."""
    if _call_of(layer) != _EXCEPTIONS:
        return True
    by_status, by_type = getattr(layer, "_status_handlers", None), getattr(layer, "_exception_handlers", None)
    if not isinstance(by_status, dict) or not isinstance(by_type, dict) or {404, 405} & by_status.keys():
        return False
    handlers = [by_type[kind] for kind in HTTPException.__mro__ if kind in by_type]
    return bool(handlers) and code_of(handlers[0]) in _ERROR_HANDLERS


def is_cors(layer: object) -> bool:
    """Return whether a layer answers preflights as Starlette's CORSMiddleware does."""
    answer = code_of(getattr(layer, "preflight_response", None))
    return _call_of(layer) == _CORS and answer == (_CORS[0], "CORSMiddleware.preflight_response")


def is_app(layer: object) -> bool:
    """Return whether a layer serves requests as Starlette and FastAPI do."""
    return _call_of(layer) in _APPS


def is_litestar(layer: object) -> bool:
    """Return whether a layer serves requests as Litestar does."""
    return _call_of(layer) == _LITESTAR


def is_router(layer: object) -> bool:
    """Return whether a layer is a router of Starlette or FastAPI, behind middlewares of its own."""
    return _call_of(layer) == _ROUTER_CALL


def is_routing_of(router: object, layer: object) -> bool:
    """Return whether a layer is the method by which a router tries its routes."""
    return getattr(layer, "__self__", None) is router and code_of(getattr(layer, "__func__", None)) in _ROUTERS


def is_handled(route: object) -> bool:
    """Return whether a route hands requests on as Starlette's and FastAPI's own do, and compares the method."""
    return code_of(getattr(route, "handle", None)) in _HANDLES


def has_no_options(endpoint: object) -> bool:
    """Return whether an endpoint is a class that answers OPTIONS with 405, as Starlette's HTTPEndpoint does."""
    if not isinstance(endpoint, type) or not issubclass(endpoint, HTTPEndpoint):
        return False
    own = ("__init__", "__await__", "dispatch", "method_not_allowed", "__getattribute__", "__new__")
    return (
        all(getattr(endpoint, name) is getattr(HTTPEndpoint, name) for name in own)
        and not hasattr(endpoint, "__getattr__")
        and not hasattr(endpoint, "options")
        and type(endpoint).__call__ is type.__call__
    )


def stack_of(app: Starlette) -> ASGIApp:
    """Return an app's middlewares around its router, which Starlette builds with the first request: this one."""
    if app.middleware_stack is None:
        app.middleware_stack = app.build_middleware_stack()
    return app.middleware_stack


def routes_unchanged(app: object) -> bool:
    """Return whether each request reaches the router of an app of Starlette through known layers only."""
    for layer in layers(app):
        if not passes_on(layer):
            return False
        if is_app(layer) and isinstance(layer, Starlette):
            return routes_unchanged(stack_of(layer))
        if is_router(layer):
            return _reaches_routes(layer)
    return False


def _reaches_routes(router: object) -> bool:
    for layer in _stack(router):
        if is_routing_of(router, layer):
            return True
        if not passes_on(layer):
            return False
    return False


def _stack(router: object) -> Iterator[object]:
    return layers(getattr(router, "middleware_stack", None))
