"""Who asks, as Starlette's AuthenticationMiddleware says."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Final

from starlette.authentication import BaseUser, SimpleUser
from starlette.types import Scope

from .base import Identity

logger = logging.getLogger("ctxmiddleware.identity")

_ABSENT: Final = object()


class ScopeUser:
    """Identifies by `scope["user"]`, which AuthenticationMiddleware or the host framework has set.

    A user that says `is_authenticated` is false, or a scope without one, is anonymous. A scope without any user at all
    is most often a middleware in the wrong order, and is logged once.

    Args:
        attribute: the attribute of the user that holds the e-mail address.
        tenant: the tenant of all these users.
    """

    def __init__(self, attribute: str = "email", *, tenant: str = "") -> None:
        self._attribute = attribute
        self._tenant = tenant
        self._told = False

    def __repr__(self) -> str:
        return f"ScopeUser({self._attribute!r})"

    def __call__(self, scope: Scope) -> Identity | None:
        """Return who the scope's user is, or None where nobody is signed in.

        Raises:
            TypeError: an authenticated user has no such attribute, or it holds no text.
        """
        user = scope.get("user")
        if user is None:
            self._tell_once()
            return None
        authenticated = getattr(user, "is_authenticated", True)
        # Some frameworks have a method where Starlette has a property, and a method is always true.
        if not (authenticated() if callable(authenticated) else authenticated):
            return None
        email = getattr(user, self._attribute, _ABSENT)
        # One that is there and empty is an answer: a name people choose must not stand in for an unconfirmed address.
        if email is _ABSENT and self._attribute == "email":
            email = _identity_of(user)
        if not isinstance(email, str) or "@" not in email:
            raise TypeError(
                f"the authenticated {type(user).__name__} has no e-mail address in .{self._attribute}; "
                "give ScopeUser the attribute that holds it, or another `identify`"
            )
        return Identity(email, self._tenant)

    def _tell_once(self) -> None:
        if not self._told:
            self._told = True
            logger.error(
                "no user on the scope, so everybody is anonymous: UserContextMiddleware must run inside the middleware "
                "that signs users in (with add_middleware, add it before that one)"
            )


def _identity_of(user: object) -> object:
    """Return who Starlette's own classes say a user is; a name that people choose themselves is no identity."""
    if isinstance(user, SimpleUser):
        return user.username
    if isinstance(user, BaseUser):
        with suppress(NotImplementedError):  # abstract in this way
            return user.identity
    return None
