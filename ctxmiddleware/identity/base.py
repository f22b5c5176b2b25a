"""Who asks, and the protocol of whatever finds it out."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol, TypeAlias

from starlette.types import Scope

from ..principal import Identity

MaybeIdentity: TypeAlias = Identity | None


class Identify(Protocol):
    """Finds out who asks. Sync or async; None for an anonymous request.

    What it raises becomes an answer: `BadCredential` a 401, `SourceUnavailable` a 503, `HTTPException` its own status,
    everything else a 500 whose traceback is in the log, once a minute for each type. Nothing of it is remembered.
    """

    def __call__(self, scope: Scope, /) -> MaybeIdentity | Awaitable[MaybeIdentity]:
        """Return who asks on this scope."""
        ...
