"""Who asks, where there are several ways to find out."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable

from starlette.types import Scope

from ..errors import ConfigurationError
from ..principal import Identity
from .base import Identify, MaybeIdentity
from .naming import refuse_shared_subjects


class first_of:  # noqa: N801 - it reads as the function it is used as
    """Asks several `identify` callables in turn and takes the first identity.

    Args:
        *ways: what to ask, in order; an exception in one ends the search.

    Raises:
        ConfigurationError: there are none, one cannot be called, or two of them give subjects without a tenant that
            tells them apart.
    """

    def __init__(self, *ways: Identify) -> None:
        if not ways or not all(callable(way) for way in ways):
            raise ConfigurationError(f"first_of was given {ways!r}; it needs one or more callables that take a scope")
        refuse_shared_subjects(ways)
        self.ways = ways

    def __call__(self, scope: Scope) -> MaybeIdentity | Awaitable[MaybeIdentity]:
        """Return the first identity that is found, or None; an awaitable only from where a way has to be awaited."""
        for place, way in enumerate(self.ways):
            answer = way(scope)
            if isinstance(answer, Identity):
                return answer
            if answer is not None:
                return self._awaited(answer, place + 1, scope)
        return None

    async def _awaited(
        self, answer: MaybeIdentity | Awaitable[MaybeIdentity], place: int, scope: Scope
    ) -> MaybeIdentity:
        identity = await resolved(answer)
        for way in self.ways[place:]:
            if identity is not None:
                break
            identity = await resolved(way(scope))
        return identity


async def resolved(answer: MaybeIdentity | Awaitable[MaybeIdentity]) -> MaybeIdentity:
    """Return what a sync or async `identify` answered.

    Raises:
        TypeError: it answered with something else than an Identity or None.
    """
    if inspect.isawaitable(answer):
        answer = await answer
    if answer is not None and not isinstance(answer, Identity):
        raise TypeError(f"identify returned {type(answer).__name__}; it must return an Identity or None")
    return answer
