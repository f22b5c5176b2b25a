"""How Litestar has read the path of a request, as it leaves it on the scope."""

from __future__ import annotations

from itertools import zip_longest

from starlette.types import Scope

from .destination import layers
from .known_layers import is_litestar, passes_on
from .routing import is_below


def is_behind_unknown_layers(app: object) -> bool:
    """Return whether an app of Litestar is inside of a layer that may route a copy of the scope."""
    is_unknown = False
    for layer in layers(app):
        if is_litestar(layer):
            return is_unknown
        is_unknown = is_unknown or not passes_on(layer)
    return False


def is_likewise_in_litestar(scope: Scope, path: str, paths: tuple[str, ...]) -> bool:
    """Return whether Litestar has routed a request by a path that is excluded.

    Args:
        scope: of the request, once Litestar has routed it.
        path: below the root path, as it was compared before.
        paths: that are excluded.
    """
    handler, read = scope["route_handler"], scope["path"]
    if getattr(handler, "is_mount", False):
        # Litestar keeps the rest of the path of a request to a mounted app.
        return any(_segments(f"{mount}/{read}") == _segments(path) for mount in _mounts(scope, handler))
    return is_below(read, paths) and _fits(scope["path_template"], read)


def _mounts(scope: Scope, handler: object) -> list[str]:
    routes = getattr(scope.get("litestar_app") or scope.get("app"), "routes", None) or ()
    return [route.path for route in routes if getattr(route, "route_handler", None) is handler]


def _fits(template: str, path: str) -> bool:
    # Where a layer has put the path back after the request was routed, the route is that of another path.
    for expected, found in zip_longest(_segments(template), _segments(path)):
        if expected is not None and expected.startswith("{"):
            if expected.endswith(":path}"):
                return True
            if found is None:
                return False
        elif expected != found:
            return False
    return True


def _segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment]
