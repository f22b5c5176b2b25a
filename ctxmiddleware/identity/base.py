"""Who asks, and the protocol of whatever finds it out."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol, TypeAlias

import msgspec
from starlette.types import Scope

from ..address import WHITE_SPACE, normalise


class Identity(msgspec.Struct, frozen=True):
    """Who asks.

    Args:
        email: the address as it was given; spellings that the e-mail rule calls one address share one context.
        tenant: keeps identity providers or customers apart: no two tenants share a context.
        subject: the provider's own identifier of the person.
        expires_at: seconds since the epoch after which no context past its time is served for it.

    Raises:
        ValueError: the address is empty.
    """

    email: str
    tenant: str = ""
    subject: str | None = None
    expires_at: float | None = None

    def __post_init__(self) -> None:
        # What is nothing but white space is empty by the e-mail rule; the rule itself is for those who need the key.
        if not self.email.strip(WHITE_SPACE):
            raise ValueError("Identity.email is empty: return None for an anonymous request")

    def __repr__(self) -> str:
        # Reprs end in logs, and an address is a person.
        return f"Identity(email='***', tenant={self.tenant!r})"

    @property
    def key(self) -> tuple[str, str]:
        """The tenant and the normalised address: what a context is kept under."""
        return (self.tenant, normalise(self.email))


MaybeIdentity: TypeAlias = Identity | None


class Identify(Protocol):
    """Finds out who asks. Sync or async; None for an anonymous request.

    What it raises becomes an answer: `BadCredential` a 401, `SourceUnavailable` a 503, everything else a 500 whose
    traceback is in the log. Nothing of it is remembered.
    """

    def __call__(self, scope: Scope, /) -> MaybeIdentity | Awaitable[MaybeIdentity]:
        """Return who asks on this scope."""
        ...
