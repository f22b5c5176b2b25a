"""Who asks, where there are several ways to find out."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import Final

from starlette.types import Scope

from ..errors import ConfigurationError
from ..principal import Identity
from .base import Identify, MaybeIdentity
from .credential import ForeignCredential, KeysUnavailable, UndecidedCredential
from .naming import refuse_shared_subjects
from .rejection import rejections_on


class first_of:  # noqa: N801 - it reads as the function it is used as
    """Asks several `identify` callables in turn and takes the first identity.

    A credential of another issuer or another form than a way's own is left to the next way, also with
    `on_bad="refuse"`. Where every way leaves it, one way with `on_bad="refuse"` suffices to refuse the request. A
    token that a `BearerJWT` without an issuer cannot verify is left to further ones of `BearerJWT` only.

    Args:
        *ways: what to ask, in order; any other exception in one ends the search.

    Raises:
        ConfigurationError: there are none, one cannot be called, or two of them give subjects without a tenant that
            tells them apart.
    """

    def __init__(self, *ways: Identify) -> None:
        if not ways or not all(callable(way) for way in ways):
            raise ConfigurationError(f"first_of was given {ways!r}; it needs one or more callables that take a scope")
        refuse_shared_subjects(ways)
        self.ways = ways
        self.takes_tokens: Final = all(map(_takes_tokens, ways))

    def __call__(self, scope: Scope) -> MaybeIdentity | Awaitable[MaybeIdentity]:
        """Return the first identity that is found, or None; an awaitable only from where a way has to be awaited.

        Raises:
            BadCredential: no way takes the credential for its own, and one of them refuses what is no good.
            SourceUnavailable: the keys of a way without an issuer cannot be fetched, and no other way has verified it.
        """
        left = _Left()
        for place, way in enumerate(self.ways):
            if left.is_for(way):
                try:
                    answer = way(scope)
                except _LEFT as error:
                    left.add(error)
                    continue
                if isinstance(answer, Identity):
                    return answer
                if answer is not None:
                    return self._awaited(answer, place + 1, scope, left)
        left.refuse(scope)
        return None

    async def _awaited(
        self, answer: MaybeIdentity | Awaitable[MaybeIdentity], place: int, scope: Scope, left: _Left
    ) -> MaybeIdentity:
        for way in (None, *self.ways[place:]):
            if way is None or left.is_for(way):
                try:
                    identity = await resolved(answer if way is None else way(scope))
                except _LEFT as error:
                    left.add(error)
                    continue
                if identity is not None:
                    return identity
        left.refuse(scope)
        return None


_LEFT: Final = (ForeignCredential, UndecidedCredential, KeysUnavailable)


class _Left:
    """State that earlier ways leave to later ones."""

    def __init__(self) -> None:
        self._foreign: Exception | None = None
        self._undecided: Exception | None = None

    def is_for(self, way: object) -> bool:
        """Return whether a way is to be asked: of a token that is undecided only one that verifies tokens."""
        return self._undecided is None or _takes_tokens(way)

    def add(self, error: ForeignCredential | UndecidedCredential | KeysUnavailable) -> None:
        """Keep why a way has left the credential.

        Raises:
            KeysUnavailable: the token is of the issuer whose keys cannot be fetched.
        """
        if isinstance(error, ForeignCredential):
            self._foreign = self._foreign or error
        elif isinstance(error, UndecidedCredential):
            self._undecided = self._undecided or error
        elif not error.is_undecided:
            raise error
        elif not isinstance(self._undecided, KeysUnavailable):
            # Its key may be among those, so that the token is not said to be bad.
            self._undecided = error

    def refuse(self, scope: Scope) -> None:
        """Raise what is due where no way has found an identity."""
        if self._undecided is not None:
            raise self._undecided
        # The way that claims a credential decides on it: its own `on_bad` made the request anonymous.
        # A way of another credential has none over a token: a second header makes no refused token anonymous.
        if self._foreign is not None and all(each.is_foreign for each in rejections_on(scope) if each.takes_tokens):
            raise self._foreign


def _takes_tokens(way: object) -> bool:
    """Return whether a way verifies the token in the Authorization header, and looks at nothing else."""
    return getattr(way, "takes_tokens", False) is True


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
