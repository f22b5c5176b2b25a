"""Whether the owner of a ready client has closed it: it is left alone from then on."""

from __future__ import annotations

import inspect
import weakref
from typing import Any, Final

_known: Final[weakref.WeakKeyDictionary[object, _Closings]] = weakref.WeakKeyDictionary()


class _Closings:
    """How often a client was closed."""

    __slots__ = ("__weakref__", "count")

    def __init__(self) -> None:
        self.count = 0


class Borrowed:
    """A ready client from now on; drivers that connect again by themselves keep no note of having been closed.

    Args:
        client: the client, or a part of it that is closed with it.
        method: the name of the method that closes it.
    """

    def __init__(self, client: object, method: str) -> None:
        self._closings = _closings_of(client, method)
        self._at_first = self._closings.count

    @property
    def is_closed(self) -> bool:
        """Whether it was closed since."""
        return self._closings.count != self._at_first


def _closings_of(client: Any, method: str) -> _Closings:
    known = _known.get(client)
    if known is not None:
        return known
    closings = _Closings()
    close = getattr(type(client), method)
    reference = weakref.ref(client)

    # On the one object, and by a weak reference: a circle would end its connections at another time.
    def closing(*arguments: Any, **options: Any) -> Any:
        closings.count += 1
        return close(reference(), *arguments, **options)

    async def closing_async(*arguments: Any, **options: Any) -> Any:
        return await closing(*arguments, **options)

    setattr(client, method, closing_async if inspect.iscoroutinefunction(close) else closing)
    _known[client] = closings
    return closings
