"""Where the routing of Starlette leads a request by its path as it was compared, to be compared with where it led."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Scope

from .destination import (
    Redirect,
    RouteUnreadable,
    app_of,
    as_read_by,
    has_late_routes,
    layers,
    match_of,
    redirect_of,
    routes_of,
)
from .known_layers import routes_unchanged
from .unreadable import report_unreadable

# An app may be mounted in itself.
_MAX_DEPTH: Final = 50


@dataclass(frozen=True, slots=True)
class Prediction:
    """Where a request is led to unless a layer changes its scope.

    Args:
        root: the root path that the outermost router reads.
        before: the endpoint on the scope before the request is routed.
        is_mounted: whether an outer router has led it here.
        is_unchanged: whether only known layers are on the way, which change nothing.
        end: where it ends.
    """

    root: str
    before: object
    is_mounted: bool
    is_unchanged: bool
    end: End

    def holds(self, message: Message, scope: Scope) -> bool:
        """Return whether a request was led there, or is answered by a known layer before it was led anywhere.

        Args:
            message: the first of its answer.
            scope: of the request, as the app leaves it.
        """
        end, reached = self.end, scope.get("endpoint")
        if end.endpoint is not None and reached is end.endpoint:
            return bool(scope.get("path_params") == end.path_params)
        if self.is_unchanged and (end.endpoint is None or reached is self.before):
            return True
        if end.redirect is not None and end.redirect.is_sent_by(message):
            return True
        # A router that takes a request for none of its routes says so on this scope, and not on a copy.
        return end.is_nowhere and not self.is_mounted and "router" in scope and reached is self.before


@dataclass(frozen=True, slots=True)
class End:
    """Where a request ends.

    Args:
        endpoint: the route's; None where none takes the request, or where it cannot be read which does.
        path_params: of the route.
        redirect: of a router, to a path with a slash more or less.
        is_nowhere: whether it is known that the outermost router answers 404.
    """

    endpoint: object = None
    path_params: object = None
    redirect: Redirect | None = None
    is_nowhere: bool = False


def predict(app: ASGIApp, scope: Scope) -> Prediction | None:
    """Return where a request is led to, or None where no app or router of Starlette is seen among the layers."""
    if not _is_read(app):
        return None
    # Headers may be read once only; this makes them a list before a copy of the scope uses them up.
    Headers(scope=scope)
    outermost = scope
    for layer in layers(app):
        outermost = as_read_by(layer, outermost)
    try:
        is_unchanged, end = _walk(app, scope, 0)
    except Exception as error:  # noqa: BLE001 - the route raises again when the request reaches it
        report_unreadable(error)
        is_unchanged, end = False, End()
    return Prediction(outermost.get("root_path") or "", scope.get("endpoint"), "router" in scope, is_unchanged, end)


def _walk(app: ASGIApp, scope: Scope, depth: int) -> tuple[bool, End]:
    is_unchanged = depth <= _MAX_DEPTH and routes_unchanged(app)
    for layer in layers(app):
        scope = as_read_by(layer, scope)
        routes = routes_of(layer) if isinstance(layer, Starlette | Router) else None
        if routes is None:
            continue
        try:
            found = match_of(routes, scope)
        except RouteUnreadable:
            return is_unchanged, End()
        if found is None:
            return _nowhere(layer, routes, scope, depth, is_unchanged=is_unchanged)
        _, route, continued = found
        inner = app_of(route)
        is_mount = bool(continued.get("endpoint") is inner)
        if depth <= _MAX_DEPTH and inner is not None and is_mount and _is_read(inner):
            is_inner_unchanged, end = _walk(inner, continued, depth + 1)
            return is_unchanged and is_inner_unchanged, end
        return is_unchanged, End(continued.get("endpoint"), continued.get("path_params"))
    return False, End()


def _nowhere(
    layer: object, routes: Iterable[object], scope: Scope, depth: int, *, is_unchanged: bool
) -> tuple[bool, End]:
    router = getattr(layer, "router", layer)
    if has_late_routes(router):
        return False, End()
    redirect = redirect_of(layer, routes, scope)
    has_default = getattr(getattr(router, "default", None), "__func__", None) is not Router.not_found
    return is_unchanged, End(redirect=redirect, is_nowhere=depth == 0 and not has_default)


def _is_read(app: ASGIApp) -> bool:
    # Another framework's app is where a request ends.
    return any(isinstance(layer, Starlette | Router) for layer in layers(app))
