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
_FASTAPI: Final = ("fastapi.applications", "FastAPI")
_OF_INCLUDED: Final = (("fastapi.routing", "APIRouter.matches"), ("fastapi.routing", "APIRouter.handle"))


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
        layer = attribute(layer, "app")


def attribute(layer: object, name: str) -> object:
    """Return an attribute, or None where there is none or it raises: outside of a request a proxy object may."""
    try:
        return getattr(layer, name, None)
    except Exception:  # noqa: BLE001 - raised on, it would be an answer in the place of the refusal that is due
        return None


def code_of(function: object) -> tuple[object, object]:
    """Return the module and the qualified name that a function was defined with.

    A subclass that overrides a method, and instrumentation that replaces one, have another module, whatever
    `functools.wraps` has copied.
    """
    code_globals = attribute(function, "__globals__")
    module = code_globals.get("__name__") if isinstance(code_globals, dict) else None
    return module, attribute(function, "__qualname__")


def routes_of(layer: object) -> list[object] | None:
    """Return the routes of an app or router, or None where it has none that can be read."""
    routes = attribute(layer, "routes")
    return routes if isinstance(routes, list) else None


def as_read_by(layer: object, scope: Scope) -> Scope:
    """Return a scope as the routes of a layer read it: FastAPI puts its own root path in the place of the server's."""
    root = attribute(layer, "root_path")
    kinds = {(each.__module__, each.__name__) for each in type(layer).__mro__}
    return {**scope, "root_path": root} if root and _FASTAPI in kinds else scope


class RouteUnreadable(Exception):
    """Raised where the route that takes a request cannot be found out."""


def match_of(routes: Iterable[object], scope: Scope) -> tuple[Match, Routable, Scope] | None:
    """Return the route that takes a request, how it matches, and the scope as it continues, or None.

    Raises:
        RouteUnreadable: a route before it is another framework's.
    """
    partial: tuple[Match, Routable, Scope] | None = None
    for route in candidates(routes):
        if route is None:
            raise RouteUnreadable
        match, child = route.matches(scope)
        if match is Match.FULL:
            return match, route, {**scope, **child}
        if match is Match.PARTIAL and partial is None:
            partial = match, route, {**scope, **child}
    return partial


def steps(app: ASGIApp, scope: Scope) -> Iterator[object]:
    """Return what a request comes through: layers of the app, the route that takes it, what that leads to, and so on.

    The first route that matches decides, as it will when the app is called: fully, else but for the method (405), else
    with a slash more or less (307), which ends in a Redirect. The walk ends where that cannot be determined.
    """
    for layer in layers(app):
        yield layer
        scope = as_read_by(layer, scope)
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
        """The layers and routes that a request of that path passes."""
        return _through(self.route, self.scope)

    def is_sent_by(self, message: Message) -> bool:
        """Return whether a message begins this answer, and no other."""
        location = str(URL(scope=self.scope)).encode()
        return message.get("status") == 307 and (b"location", location) in message.get("headers", ())


def _along(layer: object, routes: Iterable[object], scope: Scope) -> Iterator[object]:
    try:
        found = match_of(routes, scope)
    except RouteUnreadable:
        return
    if found is None:
        redirect = redirect_of(layer, routes, scope)
        if redirect is not None:
            yield redirect
        return
    match, route, continued = found
    if match is Match.FULL:
        yield from _through(route, continued)
        return
    yield route
    yield endpoint_of(route)


def _through(route: Routable, scope: Scope) -> Iterator[object]:
    yield route
    yield endpoint_of(route)
    inner = app_of(route)
    if inner is not None:
        yield from steps(inner, scope)


def redirect_of(layer: object, routes: Iterable[object], scope: Scope) -> Redirect | None:
    """Return the redirect of a router to a path with a slash more or less, or None where it sends none."""
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
    """Return routes in the order they are tried in, included routers' one by one; None for an unreadable one."""
    for route in routes:
        included = getattr(route, "effective_route_contexts", None)
        if not isinstance(route, BaseRoute) or (included is not None and not _is_included_as_usual(route)):
            yield None
        elif included is not None:
            yield from (None if _has_own_matches(each) else each for each in included())
        else:
            yield route


def _has_own_matches(context: object) -> bool:
    # FastAPI asks the route itself, and its stand-in repeats what `APIRoute.matches` says.
    route = getattr(context, "original_route", None)
    if not hasattr(route, "dependant"):
        return False
    return code_of(getattr(route, "matches", None)) not in (
        ("fastapi.routing", "APIRoute.matches"),
        ("fastapi.routing", "APIWebSocketRoute.matches"),
    )


def _is_included_as_usual(inclusion: object) -> bool:
    # The router is asked as a whole, and one with methods of its own may lead on to any of its routes, or to none.
    router = getattr(inclusion, "original_router", None)
    methods = (code_of(getattr(router, name, None)) for name in ("matches", "handle"))
    if any(method not in _OF_INCLUDED for method in methods):
        return False
    routes = routes_of(router) or ()
    return all(_is_included_as_usual(each) for each in routes if hasattr(each, "original_router"))


def endpoint_of(route: Routable) -> object:
    """Return what a route calls, or None where it leads on."""
    return getattr(target(route), "endpoint", None)


def app_of(route: Routable) -> ASGIApp | None:
    """Return the app a route leads to."""
    inner: ASGIApp | None = getattr(target(route), "app", None)
    return inner


def handler_of(route: Routable) -> object:
    """Return the route whose `handle` gets the request: that of an included router is FastAPI's own, or a copy."""
    return getattr(route, "starlette_route", None) or getattr(route, "original_route", None) or route


def has_late_routes(router: object) -> bool:
    """Return whether FastAPI tries further routes after all of a router, such as those of `app.frontend`."""
    late = getattr(router, "_iter_low_priority_routes", None)
    return late is not None and next(iter(late()), None) is not None


def target(route: Routable) -> object:
    """Return the route that FastAPI's stand-in for one stands for, as it is reached; any other route as it is."""
    return getattr(route, "starlette_route", None) or route
