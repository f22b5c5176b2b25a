"""Headers of a scope as they were sent: a name may be there more than once, which is an attack more often than not."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import Scope


def sent(scope: Scope, name: bytes) -> list[bytes]:
    """Return the values of a header, in their order.

    Args:
        scope: the connection's.
        name: in lower case.
    """
    if not scope.get("headers"):
        return []
    # Some hosts let them be read once only; this makes them a list for whoever reads them next.
    return [value for each, value in Headers(scope=scope).raw if each.lower() == name]
