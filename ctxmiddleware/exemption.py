"""Which requests need no context: those on excluded paths, and CORS preflights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from starlette.types import ASGIApp, Message, Scope

from .litestar_routing import is_behind_unknown_layers, is_likewise_in_litestar
from .prediction import predict
from .preflight import Unreadable, answered_by, checked_preflight, is_preflight
from .routing import LITESTAR_KEYS, checked_paths, has_two_readings, is_below, is_excluded, relative_path

logger = logging.getLogger("ctxmiddleware.routing")


_TWO_READINGS: Final = (
    "exclude has no effect on requests whose path does not begin with the root path or holds it twice, because "
    "frameworks read such a path in different ways: let the proxy in front keep the prefix, set no root path, or mark "
    "endpoints of Starlette and FastAPI with `public`"
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
        is_path = bool(self._paths) and is_excluded(scope, self._paths)
        if is_path:
            holds = self._reader(scope)
        elif self._passes_preflights:
            return None
        else:
            answered = answered_by(self._app, scope)
            holds = _never if answered is None else partial(answered.begins_with, scope=scope)
        return holds

    def _reader(self, scope: Scope) -> Callable[[Message], bool]:
        path, root, relative = scope.get("path"), scope.get("root_path"), relative_path(scope)
        is_mounted = "app_root_path" in scope
        prediction = predict(self._app, scope)
        behind_unknown = is_behind_unknown_layers(self._app)

        def as_predicted(message: Message) -> bool:
            # An app of Litestar in a mount tidies the path on the scope.
            is_tidied = scope.keys() >= LITESTAR_KEYS and is_likewise_in_litestar(scope, relative, self._paths)
            if prediction is None or not (scope.get("path") == path or is_tidied):
                return False
            read = {"path": path, "root_path": prediction.root}
            return is_below(relative_path(read), self._paths) and prediction.holds(message, scope)

        def as_read(_: Message) -> bool:
            # A mount moves what it has matched into the root path, and keeps the former one.
            before = root if is_mounted else scope.get("app_root_path", scope.get("root_path"))
            now = {"path": scope.get("path"), "root_path": before}
            if scope.keys() >= LITESTAR_KEYS:
                return is_likewise_in_litestar(scope, relative, self._paths)
            if behind_unknown or (is_mounted and scope.get("root_path") != root):
                return False
            # Starlette's router, which says that it was reached, reads the path as this does.
            return is_below(relative_path(now), self._paths) and ("router" in scope or not has_two_readings(now))

        return as_read if prediction is None else as_predicted

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


def _never(_: Message) -> bool:
    return False
