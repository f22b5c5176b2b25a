"""A batch that failed as a whole: how its users are answered all the same, in as few calls as it takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from .errors import SourceUnavailable
from .principal import Identity
from .sources.exchange import OutOfTime, RequestRefused, WayClosed, is_for_everybody
from .sources.singly import singly

A = TypeVar("A")

# Calls in a row without one success. A batch that two or three neighbours spoil takes up to nine to find them.
IN_VAIN: Final = 12


class Split(Generic[A]):
    """Asks for a batch, where that fails for its halves, and those again; last for single users, a few at a time.

    Not halved is what ran out of time, for it would again, and what the way for many is closed to. Single users come
    last: one whose call hangs costs nobody an answer. Nobody is asked for any more once the source can answer nobody.

    Args:
        many: asks for many.
        one: asks for one.
    """

    def __init__(
        self,
        many: Callable[[Sequence[Identity]], Awaitable[Mapping[Identity, A | Exception]]],
        one: Callable[[Identity], Awaitable[A]],
    ) -> None:
        self._many = many
        self._one = one
        self._in_vain = 0
        self._ends: Exception | None = None
        self.found: dict[Identity, A | Exception] = {}
        """What became of each user so far."""

    async def ask(self, identities: Sequence[Identity]) -> None:
        """Ask for these users, each of whom is found in the end unless the time runs out."""
        alone = await self._in_parts(identities)
        if self._ends is None:
            self._ends = await singly(alone, self._one, self.found, in_vain=IN_VAIN, errors=Exception, counts=Exception)
        if self._ends is not None:
            error = _for_the_others(self._ends)
            self.found.update((each, error) for each in identities if each not in self.found)

    async def _in_parts(self, identities: Sequence[Identity]) -> list[Identity]:
        """Return whom only a call of their own can answer."""
        alone: list[Identity] = []
        parts = [identities]
        while parts and self._ends is None:
            part = parts.pop()
            if len(part) == 1 or self._in_vain >= IN_VAIN:
                alone += part
                continue
            try:
                self.found.update(await self._many(part))
                self._in_vain = 0
            except (OutOfTime, WayClosed):
                alone += part
            except Exception as error:  # noqa: BLE001 - whatever a source raises belongs to those it was asked for
                self._in_vain += 1
                self._ends = error if _ends_all(error) else None
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
        return alone


def _ends_all(error: Exception) -> bool:
    # A firewall before the API may have taken offence at one address.
    return is_for_everybody(error) and not isinstance(error, RequestRefused)


def _for_the_others(error: Exception) -> Exception:
    if _ends_all(error) or isinstance(error, SourceUnavailable):
        return error
    # Somebody else's wrong row must not be told of them; and what is known of them may stand in.
    others = SourceUnavailable("the source answered none of those it was asked for before")
    others.__cause__ = error
    return others
