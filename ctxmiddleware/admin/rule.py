"""Who may use the admin, by what is known of the user who asks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from inspect import iscoroutine, iscoroutinefunction
from typing import Final, Generic, TypeVar, cast

from starlette.requests import HTTPConnection
from starlette.types import Scope

from ..accessors import scope_key
from ..errors import ConfigurationError
from ..model import UserContext
from ..principal import Identity
from ..refusal import denial_on

logger = logging.getLogger("ctxmiddleware.admin")

T = TypeVar("T")

# Where the admin writes whose it is, before it asks its guards.
PLUGIN_KEY: Final = "ctxmiddleware_admin_of"

_MISSING: Final = (
    "ContextRule needs UserContextMiddleware in front of the admin, with the plugin whose admin it is; nobody is let in"
)
_EXCLUDED: Final = (
    "ContextRule lets nobody in, because nobody is identified on the admin's path: take it out of the middleware's "
    "`exclude`"
)


class ContextRule(Generic[T]):
    """Lets in users whose resolved context satisfies a rule: `ContextRule(lambda each: each.employee.role == "admin")`.

    The middleware has to run before the admin, and must not exclude its path. Users are known by what a browser may
    send by itself, so what changes something has to come from the site's own pages, or with a header
    `X-Requested-With`. While the source is down, users who are not in the cache are not let in: `any_of` with a token
    keeps a way open.

    Args:
        rule: an ordinary function that says of a context whether its user may; anything but True is no.
        name: of the plugin whose context it is; None for the one whose admin it guards.

    Raises:
        ConfigurationError: the rule cannot be called, or is async.
    """

    cannot_be_guessed: Final = True

    def __init__(self, rule: Callable[[T], bool], *, name: str | None = None) -> None:
        if not callable(rule):
            raise ConfigurationError(f"the rule was {type(rule).__name__}; it is called with a context")
        if iscoroutinefunction(rule) or iscoroutinefunction(type(rule).__call__):
            # A coroutine that nobody awaits is no answer.
            raise ConfigurationError("the rule was an async function; it is an ordinary function of a context")
        self._rule = rule
        self._key = None if name is None else scope_key(name)
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return f"<ContextRule on {self._key or 'the context of its admin'}>"

    def user_of(self, connection: HTTPConnection) -> Identity | None:
        """Return the user who asks, as the middleware has identified them."""
        context, _ = self._found(connection.scope)
        identity = connection.scope.get(f"{self._scope_key(connection.scope)}_identity")
        return identity if context is not None and isinstance(identity, Identity) else None

    def refusal(self, connection: HTTPConnection) -> tuple[int, str, Mapping[str, str]]:
        """Return how a connection is refused: a status, what to do, and further headers."""
        status, detail = self._refusal(connection.scope)
        denial = denial_on(connection.scope, self._scope_key(connection.scope) or "")
        if denial is None or denial.reason not in ("rejected", "unavailable"):
            return status, detail, {}
        # With the status of `identify`: a client that is to wait must not sign in anew. None of success is a refusal.
        is_refusal = 300 <= denial.status < 600 and denial.status != 304
        told = denial.detail if isinstance(denial.detail, str) and denial.detail else detail
        return denial.status if is_refusal else status, told, denial.further_headers

    def _refusal(self, scope: Scope) -> tuple[int, str]:
        context, why = self._found(scope)
        if why == "rejected":
            return 403, "`identify` has refused the request"
        if why in ("unavailable", "failed"):
            return 503, "who you are cannot be found out now; try again later"
        if context is not None or why in ("unknown", "inactive"):
            return 403, "the admin's rule does not let you in"
        return 401, "sign in as a user whom the admin's rule lets in"

    def __call__(self, connection: HTTPConnection) -> bool:
        """Return whether the connection's user may."""
        context, why = self._found(connection.scope)
        if why == "missing":
            self._tell(_MISSING)
        elif why == "excluded" and connection.scope.get("method") != "OPTIONS":
            self._tell(_EXCLUDED)
        if context is None:
            return False
        verdict: object = self._rule(context)
        if iscoroutine(verdict):
            verdict.close()
        return verdict is True

    def _found(self, scope: Scope) -> tuple[T | None, str | None]:
        """Return the context of who asks, and why there is none."""
        key, plugin = self._scope_key(scope), None if self._key else scope.get(PLUGIN_KEY)
        if key is None or key not in scope:
            return None, "missing"
        if plugin is not None:
            seen = scope.get(f"{key}_plugin")
            # Two plugins may have one name, and the users of the one are not the other's.
            if not (isinstance(seen, tuple) and seen and seen[0] is plugin):
                return None, "missing"
        return cast("T | None", scope[key]), scope.get(f"{key}_refusal")

    def _scope_key(self, scope: Scope) -> str | None:
        return self._key or getattr(scope.get(PLUGIN_KEY), "scope_key", None)

    def _tell(self, what: str) -> None:
        # Once: whoever asks without end must not fill the log.
        if what not in self._told:
            self._told.add(what)
            logger.error("%s", what)


def role_in(*roles: str) -> ContextRule[UserContext]:
    """Return a rule that lets in employees of certain roles, written exactly as they are stored.

    Args:
        *roles: one or more.

    Raises:
        ConfigurationError: there is none, or one is not a string.
    """
    if not roles or not all(isinstance(role, str) and role for role in roles):
        raise ConfigurationError('role_in takes one or more roles: role_in("admin", "support")')
    allowed = frozenset(roles)
    return ContextRule(lambda context: context.employee.role in allowed)
