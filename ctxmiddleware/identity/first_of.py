"""Who asks, where there are several ways to find out."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable

from starlette.types import Scope

from ..errors import ConfigurationError
from ..principal import Identity
from .base import Identify, MaybeIdentity
from .credential import ForeignCredential
from .naming import refuse_shared_subjects
from .rejection import rejections_on


class first_of:  # noqa: N801 - it reads as the function it is used as
    """Asks several `identify` callables in turn and takes the first identity.

    A credential of another issuer or another form than a way's own is left to the next way, also with
    `on_bad="refuse"`. Where every way leaves it, one way with `on_bad="refuse"` suffices to refuse the request.

    Args:
        *ways: what to ask, in order; an exception in one, other than `ForeignCredential`, ends the search.

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
        """Return the first identity that is found, or None; an awaitable only from where a way has to be awaited.

        Raises:
            ForeignCredential: no way takes the credential for its own, and one of them refuses what is no good.
        """
        foreign: ForeignCredential | None = None
        for place, way in enumerate(self.ways):
            try:
                answer = way(scope)
            except ForeignCredential as error:
                foreign = foreign or error
                continue
            if isinstance(answer, Identity):
                return answer
            if answer is not None:
                return self._awaited(answer, place + 1, scope, foreign)
        _refuse_unclaimed(scope, foreign)
        return None

    async def _awaited(
        self,
        answer: MaybeIdentity | Awaitable[MaybeIdentity],
        place: int,
        scope: Scope,
        foreign: ForeignCredential | None,
    ) -> MaybeIdentity:
        for way in (None, *self.ways[place:]):
            try:
                identity = await resolved(answer if way is None else way(scope))
            except ForeignCredential as error:
                foreign = foreign or error
                continue
            if identity is not None:
                return identity
        _refuse_unclaimed(scope, foreign)
        return None


def _refuse_unclaimed(scope: Scope, foreign: ForeignCredential | None) -> None:
    # A way that takes the credential for its own has the say over it: its own `on_bad` made the request anonymous.
    if foreign is not None and all(each.is_foreign for each in rejections_on(scope)):
        raise foreign


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
