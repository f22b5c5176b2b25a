"""What a source of contexts is: the protocol a user's own source fulfils."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from ..errors import SourceError

T_co = TypeVar("T_co", covariant=True)


class Loaded(msgspec.Struct, Generic[T_co], frozen=True):
    """A value together with what its source knows about it.

    Args:
        value: the context, or None for an unknown user.
        origin: the source's own word for where it came from, shown on resolutions and in counters.
        ttl: seconds this value may be kept, where the source knows better than the policy.
    """

    value: T_co | None
    origin: str | None = None
    ttl: float | None = None


class ContextSource(Protocol[T_co]):
    """Where contexts come from on a miss.

    A source that is also an async context manager is entered once in each event loop that uses it, before the first
    `fetch`, and left at shut-down. Where it has a `label`, a string that names its database, what other sources have
    put into Redis is never taken for its own; where it has `invalidated(email, ago=seconds)`, that is called
    at each invalidation, with None for everybody, and before a load of somebody whom another process has invalidated so
    many seconds ago.
    """

    async def fetch(self, email: str) -> T_co | Loaded[T_co] | None:
        """Return the user's context, or None for an unknown user.

        Args:
            email: the address as it was asked for.

        Raises:
            SourceUnavailable: the source cannot answer now.
            SourceError: the source answered with something that is not a context.
        """
        ...


class BatchSource(ContextSource[T_co], Protocol[T_co]):
    """A source that can be asked for many users at once: concurrent misses then travel together, 100 at most."""

    async def fetch_many(self, emails: Sequence[str]) -> Mapping[str, T_co | Loaded[T_co] | SourceError | None]:
        """Return the context of each address, None for an unknown user, or an error that is that user's alone.

        An address that is missing from the answer is an error, never an unknown user. Where the call fails as a whole
        it is repeated for fewer, unless the error says that nobody can be answered (`SourceUnavailable(outage=True)`).

        Args:
            emails: the addresses as they were asked for, which are the keys of the answer.

        Raises:
            SourceUnavailable: the source cannot answer now.
            SourceError: the source answered with something that is not contexts.
        """
        ...
