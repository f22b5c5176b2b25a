"""Who may use the admin, by what is known of the user who asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, cast

from starlette.requests import HTTPConnection

from ..accessors import scope_key
from ..errors import ConfigurationError, MiddlewareMissing

T = TypeVar("T")


class ContextRule(Generic[T]):
    """Lets in users whose resolved context satisfies a rule: `ContextRule(lambda each: each.employee.role == "admin")`.

    The middleware has to run before the admin, and must not exclude its path. Users are known by what a browser may
    send by itself, so what changes something has to come from the site's own pages, or with a header
    `X-Requested-With`.

    Args:
        rule: says of a context whether its user may; anything but True is no.
        name: of the plugin whose context it is.

    Raises:
        ConfigurationError: the rule cannot be called.
    """

    def __init__(self, rule: Callable[[T], bool], *, name: str = "default") -> None:
        if not callable(rule):
            raise ConfigurationError(f"the rule was {type(rule).__name__}; it is called with a context")
        self._rule = rule
        self._key = scope_key(name)

    def __repr__(self) -> str:
        return f"<ContextRule on {self._key}>"

    def user_of(self, connection: HTTPConnection) -> str | None:
        """Return the address of the user who asks, where the context has one."""
        email = getattr(connection.scope.get(self._key), "email", None)
        return email if isinstance(email, str) else None

    def __call__(self, connection: HTTPConnection) -> bool:
        """Return whether the connection's user may.

        Raises:
            MiddlewareMissing: no middleware has resolved who asks.
        """
        if self._key not in connection.scope:
            raise MiddlewareMissing(
                f"scope[{self._key!r}] is not set: ContextRule needs UserContextMiddleware in front of the admin"
            )
        context = cast("T | None", connection.scope[self._key])
        return context is not None and self._rule(context) is True
