"""What users' own tests need: a source that answers from a mapping, a clock, and a context without any cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias, TypeVar, overload

from .errors import SourceError
from .overriding import overriding
from .principal import Identity, as_identity
from .sources.base import BatchSource, Loaded

T = TypeVar("T")

# A mapping's keys are invariant: one of addresses alone is not one of both.
Contexts: TypeAlias = (
    Mapping[str, T | SourceError] | Mapping[Identity, T | SourceError] | Mapping[str | Identity, T | SourceError]
)


class StaticSource(BatchSource[T]):
    """A source that answers from a mapping and records its calls: `calls` for one user, `batches` for many.

    Args:
        contexts: contexts by e-mail address, which answers in every tenant, or by Identity; an error in a context's
            place is raised. A user who is not there is unknown.
        origin: the origin its answers carry.
    """

    label = "static"

    # Overloads, and no union: a type checker finds the type of a dict literal in them.
    @overload
    def __init__(self, contexts: Mapping[str, T | SourceError], *, origin: str = "static") -> None: ...
    @overload
    def __init__(self, contexts: Mapping[Identity, T | SourceError], *, origin: str = "static") -> None: ...
    @overload
    def __init__(self, contexts: Mapping[str | Identity, T | SourceError], *, origin: str = "static") -> None: ...
    def __init__(self, contexts: Contexts[T], *, origin: str = "static") -> None:
        self._contexts = {_key_of(user): context for user, context in contexts.items()}
        self._origin = origin
        self.calls: list[Identity] = []
        self.batches: list[tuple[Identity, ...]] = []

    def __repr__(self) -> str:
        return f"<StaticSource: {len(self._contexts)} contexts, {len(self.calls)} calls>"

    async def fetch(self, identity: Identity) -> Loaded[T]:
        """Return the mapping's context.

        Raises:
            SourceError: the mapping holds an error for this user.
        """
        self.calls.append(identity)
        answer = self._answer(identity)
        if isinstance(answer, SourceError):
            raise answer
        return answer

    async def fetch_many(self, identities: Sequence[Identity]) -> dict[Identity, Loaded[T] | SourceError]:
        """Return the mapping's contexts, and its errors."""
        self.batches.append(tuple(identities))
        return {identity: self._answer(identity) for identity in identities}

    def _answer(self, identity: Identity) -> Loaded[T] | SourceError:
        in_every_tenant = self._contexts.get(identity.name) if identity.key == "email" else None
        answer = self._contexts.get(identity.cache_key, in_every_tenant)
        return answer if isinstance(answer, SourceError) else Loaded(answer, self._origin)


def _key_of(user: str | Identity) -> str | tuple[str, str]:
    # A bare address stands for the user in every tenant.
    return as_identity(user).name if isinstance(user, str) else user.cache_key


class FakeClock:
    """A monotonic clock that moves when it is told to.

    Args:
        now: seconds it shows at first.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the seconds it shows."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move it forward."""
        self.now += seconds


def override_user_context(context: object, *, key: str = "user_context") -> AbstractContextManager[None]:
    """Give a context to the requests that are made inside the block, and to `current_user_context()`.

    It holds for requests by Starlette's TestClient (also over websockets), by an ASGITransport, and for tasks that are
    started inside the block, and for no other request. No user is identified and no source called; `is_active` and
    excluded paths apply as ever.

    Args:
        context: of these requests; None makes them anonymous.
        key: the scope key of the plugins it is for; `plugin.override(context)` is for one plugin only.
    """
    return overriding(context, key)
