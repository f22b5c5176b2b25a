"""Where an app's own routing leads a request, as far as it can be read: Starlette's, and what is built on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from starlette.datastructures import URL
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Scope

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

    The first route that matches decides, as it will when the app is called: fully, else but for the method (405), else
    with a slash more or less (307), which ends in a Redirect. Where that cannot be told the way ends.
    """
    for layer in layers(app):
        yield layer
        routes = routes_of(layer)
        if routes is not None:
            yield from _along(layer, routes, scope)
            return


@dataclass(frozen=True, slots=True)
class Redirect:
    """The answer of a router to a path with a slash too many or too few.

    Args:
        scope: the request of the path it redirects to, as the route that matches it continues.
        route: matches that path.
    """

    scope: Scope
    route: Routable

    @property
    def steps(self) -> Iterator[object]:
        """What a request of that path comes through."""
        return _through(self.route, self.scope)

    def is_sent_by(self, message: Message) -> bool:
        """Return whether a message begins this answer, and no other."""
        location = str(URL(scope=self.scope)).encode()
        return message.get("status") == 307 and (b"location", location) in message.get("headers", ())


def _along(layer: object, routes: Iterable[object], scope: Scope) -> Iterator[object]:
    partial: Routable | None = None
    for route in candidates(routes):
        if route is None:
            return  # another framework's: who is reached cannot be told
        match, child = route.matches(scope)
        if match is Match.FULL:
            yield from _through(route, {**scope, **child})
            return
        if match is Match.PARTIAL and partial is None:
            partial = route
    if partial is not None:
        yield partial
        yield endpoint_of(partial)
        return
    redirect = _redirect_of(layer, routes, scope)
    if redirect is not None:
        yield redirect


def _through(route: Routable, scope: Scope) -> Iterator[object]:
    yield route
    yield endpoint_of(route)
    inner = app_of(route)
    if inner is not None:
        yield from steps(inner, scope)


def _redirect_of(layer: object, routes: Iterable[object], scope: Scope) -> Redirect | None:
    router = getattr(layer, "router", layer)
    path: str = scope["path"]
    if scope["type"] != "http" or not getattr(router, "redirect_slashes", False):
        return None
    if path.removeprefix(scope.get("root_path") or "") == "/":
        return None
    other = {**scope, "path": path.rstrip("/") if path.endswith("/") else f"{path}/"}
    for route in candidates(routes):
        if route is None:
            return None
        match, child = route.matches(other)
        if match is not Match.NONE:
            return Redirect({**other, **child}, route)
    return None


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
