"""Invalidation by a plugin: of one, many or all users, at once or around a transaction."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial

from .blocking import Blocking
from .changing import Changing
from .holding import Holding
from .invalidation import MOST_USERS, Invalidator
from .principal import Identity, names_of
from .reports import InvalidationReport


class PluginInvalidation:
    """The part of a plugin that invalidates, which its other part opens."""

    _invalidator: Invalidator
    _holding: Holding

    def __init__(self) -> None:
        self._blocking = Blocking(lambda: self._holding.serving())

    def _opened(self) -> AbstractAsyncContextManager[object]:
        """Open the plugin in the running event loop for a call, where it is not open yet."""
        raise NotImplementedError

    async def invalidate(
        self, users: str | Identity | Iterable[str | Identity], *, or_clear: bool = False
    ) -> InvalidationReport:
        """Forget one user, or several, everywhere: no context loaded before this returns is served after it.

        It reaches the address, or the subject, in every tenant. Called before the COMMIT of the change it stands for,
        it holds once `settle` seconds are over, if the COMMIT came within them; longer transactions need `changing`.

        Args:
            users: an address, in any spelling that the e-mail rule calls the same, an Identity, or many of these.
            or_clear: whether more than 1,000 users become a `clear` of all.

        Raises:
            InvalidationFailed: Redis did not take the invalidation; this process has forgotten the users all the same.
            ValueError: an address is empty, or they are more than 1,000.
        """
        names = _names_to_invalidate(users, or_clear=or_clear)
        async with self._opened():
            return await self._invalidator.of(names)

    def invalidate_sync(
        self, users: str | Identity | Iterable[str | Identity], *, or_clear: bool = False
    ) -> InvalidationReport:
        """Do what `invalidate` does from a thread without an event loop, as a hook after a synchronous COMMIT is.

        Raises:
            RuntimeError: an event loop runs in this thread.
            InvalidationFailed: as `invalidate` does.
            ValueError: as `invalidate` does.
        """
        names = _names_to_invalidate(users, or_clear=or_clear)
        return self._blocking.run(partial(self._invalidator.of, names))

    def changing(self, *users: str | Identity) -> Changing:
        """Return a block around a transaction of any length: `async with`, or `with` in a thread without event loop.

        At its begin the users are invalidated, meanwhile no instance keeps what it loads of them, and at its end, by an
        exception too, they are invalidated again; a cancellation is raised after that. Where the process dies, it ends
        by itself after a minute. `block.report` is what the invalidation at the begin did, then that at the end.

        `with` runs in the event loop in which the plugin is open, where there is one, else in a thread of its own that
        opens Redis alone and no source.

        Args:
            *users: addresses or identities, 1,000 at most.

        Raises:
            InvalidationFailed: on entry, before the block runs, if Redis did not take the invalidation; at the end too,
                unless the block ends with an exception of its own, to which it is attached.
            RuntimeError: `with` where an event loop runs in this thread.
            ValueError: there is no user, too many, or an address is empty.
        """
        names = names_of(users)
        if len(names) > MOST_USERS:
            raise ValueError(f"{len(names)} users are more than {MOST_USERS}: call clear() after the transaction")
        return Changing(names, lambda: self._holding, self._blocking)

    async def clear(self) -> InvalidationReport:
        """Forget all users in all instances; the cost does not depend on the number of users.

        Raises:
            InvalidationFailed: Redis did not take the invalidation; this process has forgotten all users all the same.
        """
        async with self._opened():
            return await self._invalidator.one(None)


def _names_to_invalidate(users: str | Identity | Iterable[str | Identity], *, or_clear: bool) -> list[str] | None:
    names = names_of(users)
    if len(names) <= MOST_USERS:
        return names
    if or_clear:
        return None
    raise ValueError(f"{len(names)} users are more than {MOST_USERS}: call clear(), or invalidate(..., or_clear=True)")
