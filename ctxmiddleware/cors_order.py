"""A warning where refusals lack the headers of a CORSMiddleware, because that is added inside of ours."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Scope

from .destination import app_of, candidates, layers, routes_of

logger = logging.getLogger("ctxmiddleware.middleware")


class CorsOrder:
    """Warns once where a CORSMiddleware is inside of an app whose refusals it should add headers to.

    Args:
        app: the app inside of ours.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._is_checked = False

    def check(self, refused: Scope | None = None) -> None:
        """Warn, at the start or with a refused request of a browser's page from another origin."""
        if self._is_checked or (refused is not None and "origin" not in Headers(scope=refused)):
            return
        self._is_checked = True
        try:
            is_inside = any(_is_cors(layer) for layer in _all_layers(self._app, set()))
        except Exception as error:
            logger.debug("the layers of the app cannot be read for the order of CORSMiddleware", exc_info=error)
            return
        if is_inside:
            logger.warning(
                "CORSMiddleware is inside UserContextMiddleware: refusals (401, 403, 503) lack its headers, and "
                "browsers hide them from pages of other origins. Add CORSMiddleware after UserContextMiddleware or "
                "plugin.install(app), because the middleware added last runs first"
            )


def _all_layers(app: object, seen: set[int]) -> Iterator[object]:
    for layer in layers(app):
        if id(layer) in seen:
            return  # an app may be mounted in itself
        seen.add(id(layer))
        yield layer
        yield from (getattr(each, "cls", None) for each in getattr(layer, "user_middleware", ()))
        routes = routes_of(layer)
        if routes is not None:
            for route in candidates(routes):
                yield from _all_layers(None if route is None else app_of(route), seen)
            return


def _is_cors(layer: object) -> bool:
    kind = layer if isinstance(layer, type) else type(layer)
    return issubclass(kind, CORSMiddleware)
