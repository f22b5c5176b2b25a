"""Which requests need no context: those on excluded paths, and CORS preflights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from starlette.types import ASGIApp, Message, Scope

from .preflight import Unreadable, answered_by, checked_preflight, is_preflight
from .routing import LITESTAR_KEYS, checked_paths, has_two_readings, is_below, is_excluded, relative_path

logger = logging.getLogger("ctxmiddleware.routing")


_TWO_READINGS: Final = (
    "exclude has no effect on requests whose path does not begin with the root path or holds it twice, because "
    "frameworks read such a path in different ways: let the proxy in front keep the prefix, set no root path, or mark "
    "endpoints of Starlette and FastAPI with `public`"
)
_REWRITTEN: Final = (
    "requests on an excluded path, or preflights, are refused, because an app or a middleware inside changed their "
    "path or root path to one that is not excluded: rewrite paths outside of UserContextMiddleware"
)


class Exemptions:
    """Says which requests of an app need no context, and whether one of them was routed as its path says.

    Args:
        app: the app inside.
        exclude: paths whose requests need none.
        preflight: what happens to preflights of an app whose routing cannot be read.
        required: whether other requests need one; without it a preflight passes as any anonymous request does.

    Raises:
        ConfigurationError: `exclude` holds something that is not a path, or `preflight` another word.
    """

    def __init__(self, app: ASGIApp, exclude: Iterable[str], preflight: Unreadable, *, required: bool) -> None:
        self._app = app
        self._paths: Final = checked_paths(exclude)
        self._passes_preflights = checked_preflight(preflight) == "pass" or not required
        self._warned: set[str] = set()

    def is_exempt(self, scope: Scope) -> bool:
        """Return whether a request needs no context."""
        if self._paths and self._is_excluded(scope):
            return True
        if scope.get("method") != "OPTIONS" or not is_preflight(scope):
            return False
        return self._passes_preflights or answered_by(self._app, scope) is not None

    def follow(self, scope: Scope) -> Callable[[Message], bool] | None:
        """Return what says, once an answer begins, whether routing has read the path of an exempt request likewise.

        A middleware inside may rewrite the path or the root path after it was compared. None where an exemption does
        not depend on the path.
        """
        path, root, mounted = scope.get("path"), scope.get("root_path"), "app_root_path" in scope
        relative, is_path = relative_path(scope), bool(self._paths) and is_excluded(scope, self._paths)
        if not is_path and (self._passes_preflights or answered_by(self._app, scope) != "router"):
            return None

        def is_likewise(message: Message) -> bool:  # noqa: ARG001 - the shape of a gate's question
            # A mount moves what it has matched into the root path, and keeps the former one.
            before = root if mounted else scope.get("app_root_path", scope.get("root_path"))
            now = {"path": scope.get("path"), "root_path": before}
            if not is_path:
                found = scope.get("path") == path and relative_path(now) == relative
            elif scope.keys() >= LITESTAR_KEYS:
                found = _is_likewise_in_litestar(scope, relative, self._paths)
            else:
                # Starlette's router, which says that it was reached, reads the path as this does.
                found = is_below(relative_path(now), self._paths) and ("router" in scope or not has_two_readings(now))
            if not found:
                self._warn(_REWRITTEN)
            return found

        return is_likewise

    def _is_excluded(self, scope: Scope) -> bool:
        if is_excluded(scope, self._paths):
            return True
        if has_two_readings(scope) and is_below(relative_path(scope), self._paths):
            self._warn(_TWO_READINGS)
        return False

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            logger.warning(message)


def _is_likewise_in_litestar(scope: Scope, path: str, paths: tuple[str, ...]) -> bool:
    handler, read = scope["route_handler"], scope["path"]
    if not getattr(handler, "is_mount", False):
        return is_below(read, paths)
    # Of a mounted app's request Litestar keeps the rest of the path, and the end of where it is mounted in the handler.
    mounts = getattr(handler, "paths", ())
    return any(f"{_normal(path)}/".endswith(f"{_normal(f'{mount}/{read}')}/") for mount in mounts)


def _normal(path: str) -> str:
    return "/" + "/".join(segment for segment in path.split("/") if segment)
