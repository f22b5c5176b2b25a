"""Routes of Starlette whose pattern matches the whole path, whatever characters are in it."""

from __future__ import annotations

import re
from typing import TypeVar

from starlette.routing import Mount, Route

R = TypeVar("R", Mount, Route)


def whole(route: R) -> R:
    """Return a route with a pattern in which `.` matches the end of a line, and `$` nothing but the end of the path.

    In Starlette's, an address that holds the end of a line has no route, and a path that ends with one has that of the
    path without it.
    """
    pattern = route.path_regex.pattern.removesuffix("$")
    route.path_regex = re.compile(rf"{pattern}\Z", re.DOTALL)
    return route
