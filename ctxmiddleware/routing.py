"""Which requests the middleware leaves alone: excluded paths, preflights, public endpoints, and the admin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal, TypeVar

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Scope

from .errors import ConfigurationError

# An object may answer `.app` with itself.
_MAX_LAYERS: Final = 100


def checked_paths(exclude: Iterable[str]) -> tuple[str, ...]:
    """Return path prefixes without their trailing slash.

    Raises:
        ConfigurationError: one is not a path, or is one string where several paths were meant.
    """
    if isinstance(exclude, str):
        raise ConfigurationError(
            f"exclude was the string {exclude!r}; it is a sequence of paths: exclude=({exclude!r},)"
        )
    paths = tuple(exclude)
    faults = [
        f"exclude held {path!r}; a path starts with '/'"
        for path in paths
        if not isinstance(path, str) or not path.startswith("/")
    ]
    if faults:
        raise ConfigurationError(*faults)
    return tuple(path.rstrip("/") or "/" for path in paths)


def relative_path(scope: Scope) -> str:
    """Return the path below the place the app is mounted at."""
    path: str = scope.get("path") or "/"
    root: str = scope.get("root_path") or ""
    if root and path.startswith(root) and (len(path) == len(root) or path[len(root)] == "/"):
        return path[len(root) :] or "/"
    return path


def is_excluded(scope: Scope, paths: tuple[str, ...]) -> bool:
    """Return whether the request's path is one of these or lies below one, at a segment's boundary.

    `/` stands for the root alone: an exclusion of everything is no middleware at all.
    """
    path = relative_path(scope)
    if path in paths:
        return True
    return any(path.startswith(f"{prefix}/") for prefix in paths if prefix != "/") and not _is_ambiguous(path)


def _is_ambiguous(path: str) -> bool:
    # An app that tidies paths would serve /health/../me, /health//../me or /health/..\\me as another path than this.
    first, *middle, last = path.replace("\\", "/").split("/")
    return "." in (*middle, last) or ".." in (*middle, last) or "" in middle or first != ""


def is_preflight(scope: Scope) -> bool:
    """Return whether a browser asks if another site's script may send a request (Fetch, section 4.8).

    It never carries a credential: refused for that, no script of another origin could ever sign in.
    """
    if scope["type"] != "http" or scope.get("method") != "OPTIONS":
        return False
    headers = Headers(scope=scope)
    return "origin" in headers and "access-control-request-method" in headers


E = TypeVar("E")


def public(endpoint: E) -> E:
    """Mark an endpoint of Starlette, or of what is built on it, on which nobody is refused.

    Below the decorator that makes the route. Where somebody is signed in and known the context is there as elsewhere;
    everybody else gets in without one, whatever the reason, and is `excluded`.

    Args:
        endpoint: a function or a class.

    Raises:
        ConfigurationError: it cannot be marked; name its path in `exclude`.
    """
    try:
        endpoint.__ctxmiddleware_public__ = True  # type: ignore[attr-defined]  # functions and classes take it
    except AttributeError:
        raise ConfigurationError(
            f"public was given {type(endpoint).__name__}, which cannot be marked; name its path in `exclude`"
        ) from None
    return endpoint


def is_public(endpoint: object) -> bool:
    """Return whether an endpoint is marked."""
    return getattr(endpoint, "__ctxmiddleware_public__", None) is True


def leads_to(app: ASGIApp, scope: Scope) -> Literal["admin", "public"] | None:
    """Return whether an app's own routing gives this request to an admin, which guards itself, or to a public endpoint.

    The first route that matches decides, as it will when the app is called: an admin that another route shadows is
    not reached, and is not said to be. Only the routing of Starlette and what is built on it can be read.
    """
    # Headers may be read once only; this makes them a list before a copy of the scope uses them up.
    Headers(scope=scope)
    return _leads_to(app, scope)


def _leads_to(app: ASGIApp, scope: Scope) -> Literal["admin", "public"] | None:
    for layer in layers(app):
        if getattr(layer, "guards_itself", None) is True:
            return "admin"
        routes = getattr(layer, "routes", None)
        if isinstance(routes, list):
            return _first_leads_to(routes, scope)
    return None


def layers(app: ASGIApp) -> Iterator[object]:
    """Return an app and what it wraps, layer by layer, as far as each says what is inside of it in `.app`."""
    layer: object = app
    for _ in range(_MAX_LAYERS):
        if layer is None:
            return
        yield layer
        layer = getattr(layer, "app", None)


def _first_leads_to(routes: Iterable[object], scope: Scope) -> Literal["admin", "public"] | None:
    for route in routes:
        if not isinstance(route, BaseRoute):
            return None  # another framework's: who is reached cannot be told
        match, child = route.matches(scope)
        if match is Match.FULL:
            below = {**scope, **child}
            inner = getattr(route, "app", None)
            if inner is None:
                return _first_leads_to(_included(route), below)
            return "public" if is_public(getattr(route, "endpoint", None)) else _leads_to(inner, below)
    return None


def _included(route: BaseRoute) -> Iterator[object]:
    """Return the routes of a router that FastAPI has included, in their order."""
    contexts = getattr(route, "effective_route_contexts", tuple)
    return (context.starlette_route or context.original_route for context in contexts())
