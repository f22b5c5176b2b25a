"""Which requests the middleware leaves alone: excluded paths, public endpoints, and the admin wherever it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias, TypeVar

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Scope

from .destination import Redirect, attribute, steps
from .errors import ConfigurationError
from .unreadable import report_unreadable

# Litestar puts them on the scope once it has routed the request.
LITESTAR_KEYS: Final = frozenset({"route_handler", "path_template"})


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
    faults = [fault for path in paths if (fault := _path_fault(path)) is not None]
    if faults:
        raise ConfigurationError(*faults)
    return tuple(path.rstrip("/") or "/" for path in paths)


def _path_fault(path: object) -> str | None:
    if not isinstance(path, str) or not path.startswith("/"):
        return f"exclude held {path!r}; a path starts with '/'"
    if "*" in path:
        return f"exclude held {path!r}; there are no wildcards: '/static' excludes /static and all that lies below it"
    return None


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
    return is_below(relative_path(scope), paths) and not has_two_readings(scope)


def is_below(path: str, paths: tuple[str, ...]) -> bool:
    """Return whether a relative path is one of these or lies below one, and can be read in one way only."""
    if path in paths:
        return True
    return any(path.startswith(f"{prefix}/") for prefix in paths if prefix != "/") and not _is_ambiguous(path)


def has_two_readings(scope: Scope) -> bool:
    """Return whether frameworks disagree about where the path below the root path begins.

    Hypercorn, Granian and Daphne pass a root path and leave the path as it was requested. Where the path does not begin
    with it, Starlette reads the whole path, Quart answers 404, and Litestar reads what follows its first occurrence.
    """
    path, root = scope.get("path") or "/", scope.get("root_path") or ""
    if not root:
        return False
    rest = path.removeprefix(root) if path.startswith(root) else None
    if scope.keys() >= LITESTAR_KEYS:
        # Litestar has taken the root path away already, and left it in the scope.
        return rest is not None
    return rest is None or rest[:1] not in ("", "/") or root in rest


def _is_ambiguous(path: str) -> bool:
    # An app that tidies paths would serve /health/../me, /health//../me or /health/..\\me as another path than this.
    first, *middle, last = path.replace("\\", "/").split("/")
    return "." in (*middle, last) or ".." in (*middle, last) or "" in middle or first != ""


E = TypeVar("E")


def public(endpoint: E) -> E:
    """Mark an endpoint of Starlette, or of what is built on it, on which nobody is refused.

    Below the decorator that makes the route, and above those that wrap the function: the mark is of this object alone,
    and neither a derived class nor a wrapper (`functools.wraps`) inherits it. Where somebody is signed in and known the
    context is there as elsewhere; everybody else gets in without one, whatever the reason, and is `excluded`.

    Args:
        endpoint: a function or a class.

    Raises:
        ConfigurationError: it cannot be marked; name its path in `exclude`.
    """
    # A class or static method is marked by its function, which is what a route is given to call.
    marked: object = endpoint.__func__ if isinstance(endpoint, classmethod | staticmethod) else endpoint
    if not callable(marked):
        # Another descriptor makes what is called anew at each access, without the mark.
        raise ConfigurationError(
            f"public was given {type(marked).__name__}, which is not callable; put it below, on the function itself"
        )
    try:
        # Itself and no True: a derived class finds it, and a wrapper copies it.
        marked.__ctxmiddleware_public__ = marked  # type: ignore[attr-defined]  # functions and classes take it
    except AttributeError:
        raise ConfigurationError(
            f"public was given {type(marked).__name__}, which cannot be marked; name its path in `exclude`"
        ) from None
    return endpoint


def is_public(endpoint: object) -> bool:
    """Return whether an endpoint itself is marked."""
    function = attribute(endpoint, "__func__") or endpoint
    return function is not None and attribute(function, "__ctxmiddleware_public__") is function


Freed: TypeAlias = Literal["admin", "public"] | Redirect


def leads_to(app: ASGIApp, scope: Scope) -> Freed | None:
    """Return whether an app's own routing gives this request to an admin, which guards itself, or to a public endpoint.

    The first route that matches decides, as it will when the app is called: an admin that another route shadows is
    not reached, and is not said to be. Only the routing of Starlette and what is built on it can be read. Where the
    router would redirect to one of them, because of a slash too many or too few, that redirect is returned.
    """
    # Headers may be read once only; this makes them a list before a copy of the scope uses them up.
    Headers(scope=scope)
    try:
        for step in steps(app, scope):
            if isinstance(step, Redirect):
                return step if any(_freed_by(each) for each in step.steps) else None
            if (freed := _freed_by(step)) is not None:
                return freed
    except Exception as error:  # noqa: BLE001 - raised on, it would be an answer in the place of the refusal that is due
        report_unreadable(error)
    return None


def _freed_by(step: object) -> Literal["admin", "public"] | None:
    if attribute(step, "guards_itself") is True:
        return "admin"
    return "public" if is_public(step) else None
