"""Who asks, as Starlette's AuthenticationMiddleware says."""

from __future__ import annotations

from contextlib import suppress
from typing import Final
from uuid import UUID

from starlette.authentication import BaseUser, SimpleUser
from starlette.types import Scope

from ..errors import ConfigurationError
from ..principal import Identity, Kind, subject_fault
from .naming import Naming, check_naming
from .rejection import Rejection, note_rejection

_ABSENT: Final = object()
_ORDER: Final = (
    "no user is on the scope: UserContextMiddleware must run inside the middleware that signs users in (with "
    "add_middleware, add it before that one); to verify bearer tokens give identify=BearerJWT(...)"
)


class ScopeUser:
    """Identifies by `scope["user"]`, which AuthenticationMiddleware or the host framework has set.

    A user that says `is_authenticated` is false, or a scope without one, is anonymous. A scope without any user at all
    is most often a middleware in the wrong order, and is reported in the log.

    Args:
        attribute: the attribute of the user that holds the e-mail address, or the subject: a text, a whole number or a
            UUID; by default `email` or `id`.
        kind: which of the two it is, `"email"` or `"subject"`.
        tenant: the tenant of all these users.
        hint: what the log says of requests without a user; None for the order of middlewares.

    Raises:
        ConfigurationError: the kind or the tenant cannot be.
    """

    def __init__(
        self,
        attribute: str | None = None,
        *,
        kind: Kind = "email",
        tenant: str | None = None,
        hint: str | None = None,
    ) -> None:
        faults = check_naming(kind, tenant)
        if faults:
            raise ConfigurationError(*faults)
        self.naming: Final = Naming(kind, tenant)
        self._attribute = attribute or ("email" if kind == "email" else "id")
        self._tenant = tenant or ""
        self.hint: Final = hint

    def __repr__(self) -> str:
        return f"ScopeUser({self._attribute!r})"

    def __call__(self, scope: Scope) -> Identity | None:
        """Return who the scope's user is, or None where nobody is signed in.

        Raises:
            TypeError: an authenticated user has no such attribute, or it holds no address or subject.
        """
        user = scope.get("user")
        if user is None:
            note_rejection(scope, Rejection("no user on the scope", self.hint or _ORDER, is_foreign=True))
            return None
        authenticated = getattr(user, "is_authenticated", True)
        # Some frameworks have a method where Starlette has a property, and a method is always true.
        if not (authenticated() if callable(authenticated) else authenticated):
            return None
        if self.naming.kind == "subject":
            return Identity(subject=self._subject(user), tenant=self._tenant)
        email = getattr(user, self._attribute, _ABSENT)
        # One that is there and empty is an answer: a name people choose must not stand in for an unconfirmed address.
        if email is _ABSENT and self._attribute == "email":
            email = _identity_of(user)
        if not isinstance(email, str) or "@" not in email:
            raise TypeError(
                f"the authenticated {type(user).__name__} has no e-mail address in .{self._attribute}; "
                "give ScopeUser the attribute that holds it, or another `identify`"
            )
        return Identity(email, tenant=self._tenant)

    def _subject(self, user: object) -> str:
        value = getattr(user, self._attribute, None)
        subject = str(value) if isinstance(value, (int, UUID)) and not isinstance(value, bool) else value
        if not isinstance(subject, str) or subject_fault(subject) is not None:
            raise TypeError(
                f"the authenticated {type(user).__name__} has no subject in .{self._attribute}; give ScopeUser the "
                "attribute that holds a text of 255 bytes at most, a whole number or a UUID"
            )
        return subject


def _identity_of(user: object) -> object:
    """Return who Starlette's own classes say a user is; a name that people choose themselves is no identity."""
    if isinstance(user, SimpleUser):
        return user.username
    if isinstance(user, BaseUser):
        with suppress(NotImplementedError):  # abstract in this way
            return user.identity
    return None
