"""Headers of a scope as they were sent: a name may be there more than once, which is an attack more often than not."""

from __future__ import annotations

from starlette.types import Scope


def sent(scope: Scope, name: bytes) -> list[bytes]:
    """Return the values of a header, in their order.

    Args:
        scope: the connection's.
        name: in lower case.
    """
    return [value for each, value in scope.get("headers") or () if each.lower() == name]
