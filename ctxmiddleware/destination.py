"""Where an app's own routing leads a request, as far as it can be read: Starlette's, and what is built on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Scope

# An object may answer `.app` with itself.
_MAX_LAYERS: Final = 100


class Routable(Protocol):
    """What can say whether it takes a request: a route, or FastAPI's stand-in for one of an included router."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether it does, and what it adds to the scope."""
        ...


def layers(app: object) -> Iterator[object]:
    """Return an app and what it wraps, layer by layer, as far as each says what is inside of it in `.app`."""
    layer = app
    for _ in range(_MAX_LAYERS):
        if layer is None:
            return
        yield layer
        layer = getattr(layer, "app", None)


def routes_of(layer: object) -> list[object] | None:
    """Return the routes of an app or router, or None where it has none that can be read."""
    routes = getattr(layer, "routes", None)
    return routes if isinstance(routes, list) else None


def steps(app: ASGIApp, scope: Scope) -> Iterator[object]:
    """Return what a request comes through: layers of the app, the route that takes it, what that leads to, and so on.

    The first route that matches decides, as it will when the app is called. Where that cannot be told the way ends.
    """
    for layer in layers(app):
        yield layer
        routes = routes_of(layer)
        if routes is not None:
            yield from _along(routes, scope)
            return


def _along(routes: Iterable[object], scope: Scope) -> Iterator[object]:
    for route in candidates(routes):
        if route is None:
            return  # another framework's: who is reached cannot be told
        match, child = route.matches(scope)
        if match is Match.FULL:
            yield route
            yield endpoint_of(route)
            inner = app_of(route)
            if inner is not None:
                yield from steps(inner, {**scope, **child})
            return


def candidates(routes: Iterable[object]) -> Iterator[Routable | None]:
    """Return routes in the order they are tried in, those of included routers one by one; None for a strange one."""
    for route in routes:
        included = getattr(route, "effective_route_contexts", None)
        if not isinstance(route, BaseRoute):
            yield None
        elif included is not None:
            yield from included()
        else:
            yield route


def endpoint_of(route: Routable) -> object:
    """Return what a route calls, or None where it leads on."""
    return getattr(target(route), "endpoint", None)


def app_of(route: Routable) -> ASGIApp | None:
    """Return the app a route leads to."""
    inner: ASGIApp | None = getattr(target(route), "app", None)
    return inner


def target(route: Routable) -> object:
    """Return the route that FastAPI's stand-in for one stands for, as it is reached; any other route as it is."""
    return getattr(route, "starlette_route", None) or route
