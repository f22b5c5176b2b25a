"""Which requests are a browser's question before another origin's request (CORS), sent without credentials always."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match
from starlette.types import ASGIApp, Scope

from .destination import Routable, app_of, candidates, endpoint_of, layers, routes_of


def is_preflight(scope: Scope) -> bool:
    """Return whether this is a preflight request as the Fetch standard has it; a plain OPTIONS is none."""
    if scope["type"] != "http" or scope.get("method") != "OPTIONS":
        return False
    headers = Headers(scope=scope)
    return bool(headers.get("origin")) and bool(headers.get("access-control-request-method"))


def is_mistaken(app: ASGIApp, scope: Scope) -> bool:
    """Return whether a preflight would run something that takes every method and so takes it for another request.

    Anybody can send one, so it must not be a way past `required`. What Starlette's CORSMiddleware answers, and routes
    that look at the method, cannot mistake it. Of an app whose routing cannot be read nobody can tell: it gets it.
    """
    for layer in layers(app):
        if _answers_preflights(layer):
            return False
        routes = routes_of(layer)
        if routes is not None:
            return _takes_any_method(routes, scope)
    return False


def _answers_preflights(layer: object) -> bool:
    kinds = [getattr(each, "cls", None) for each in getattr(layer, "user_middleware", ())]
    return any(isinstance(kind, type) and issubclass(kind, CORSMiddleware) for kind in (*kinds, type(layer)))


def _takes_any_method(routes: Iterable[object], scope: Scope) -> bool:
    for route in candidates(routes):
        if route is None:
            return False
        match, child = route.matches(scope)
        if match is Match.FULL:
            return _is_blind(route, {**scope, **child})
    return False


def _is_blind(route: Routable, scope: Scope) -> bool:
    if getattr(route, "methods", None):
        return False
    endpoint, inner = endpoint_of(route), app_of(route)
    if isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint):
        return False
    if inner is None or endpoint is not None or all(routes_of(layer) is None for layer in layers(inner)):
        return True
    return is_mistaken(inner, scope)
