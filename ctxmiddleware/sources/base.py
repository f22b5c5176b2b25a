"""What a source of contexts is: the protocol a user's own source fulfils."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from ..errors import SourceError
from ..principal import Identity

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
    `fetch`, and left at shut-down. Its `label`, a text that names its database and no other, keeps contexts of other
    databases in the same Redis from being taken for its own: it is needed there, unless each deployment has a namespace
    of its own. Where it has `invalidated(identity, ago=seconds)`, that is called at each
    invalidation, with None for all users, and before a load of a user whom another process invalidated so many seconds
    ago; an invalidation is of every tenant, and the identity has none. Where it has `settle(seconds)`, that is called
    once, at construction of the plugin, with the time after an invalidation in which its transaction may still commit:
    one that reads from a replica asks its primary for so much longer than the replica lags. Its `replica_lag`, seconds,
    is part of the time within which a report says that an instance stops that is cut off from Redis.
    """

    async def fetch(self, identity: Identity) -> T_co | Loaded[T_co] | None:
        """Return the user's context, or None for an unknown user.

        Args:
            identity: what the context will be kept under and nothing else: the tenant, and either the normalised
                address or the subject.

        Raises:
            SourceUnavailable: the source cannot answer now.
            SourceError: the source answered with something that is not a context.
        """
        ...


class BatchSource(ContextSource[T_co], Protocol[T_co]):
    """A source that can be asked for many users at once: concurrent misses then travel together, 100 at most."""

    async def fetch_many(
        self, identities: Sequence[Identity]
    ) -> Mapping[Identity, T_co | Loaded[T_co] | SourceError | None]:
        """Return the context of each identity, None for an unknown user, or an error that is that user's alone.

        The answer is matched by tenant, kind and key. An identity that is missing from it is an error, never an unknown
        user. A call that fails as a whole is repeated for fewer identities, unless the error says that the source can
        answer none (`SourceUnavailable(outage=True)`).

        Args:
            identities: each once, as `fetch` is given one.

        Raises:
            SourceUnavailable: the source cannot answer now.
            SourceError: the source answered with something that is not contexts.
        """
        ...
