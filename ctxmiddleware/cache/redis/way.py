"""A client of Redis, and whether the server it leads to is known to be the one it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import anyio

from ...borrowed import Borrowed
from .incarnation import Incarnation
from .servers.connection import Twin
from .servers.driver import Call, Connection, Link, Spread, connection_for, look_at, put_in_step, run

CLOSE_SECONDS: Final = 2.0


class ClosedByOwner(ConnectionError):
    """A ready client was closed while the plugin was open."""

    def __init__(self) -> None:
        super().__init__(
            "the Redis client given to ContextPlugin was closed by its owner while the plugin was open: close it after "
            "the plugin, or give a URL"
        )


class Way:
    """A client, and whether the server it leads to is known to be the one it was.

    Args:
        client: the client.
        incarnation: knows which server it was.
        is_ours: whether we made the client: each of its connections is then looked at before its first command.
    """

    def __init__(self, client: Link, incarnation: Incarnation, *, is_ours: bool) -> None:
        self.client = client
        self.is_ours = is_ours
        self._incarnation = incarnation
        self._is_checked = is_ours
        lent = () if is_ours or isinstance(client, (Spread, Twin)) else (client, client.connection_pool)
        self._lent = [Borrowed(each, "aclose") for each in lent]

    @property
    def is_closed(self) -> bool:
        """Whether it was lent, and its owner has closed it."""
        return any(each.is_closed for each in self._lent)

    async def connection(self, key: str) -> Connection:
        """Return a connection of its own, as `connection_for` does."""
        self._refuse_closed()
        if not self._is_checked:
            # Renewed after the channel was begun, it would begin anew, and what was said in between would be missed.
            await self.check()
        return await connection_for(self.client, key)

    def _refuse_closed(self) -> None:
        # It would connect again, and leave to its owner what is never closed.
        if self.is_closed:
            raise ClosedByOwner

    async def run(self, calls: Sequence[Call]) -> list[object]:
        """Carry out scripts in one trip, and return their answers, errors of Redis among them."""
        self._refuse_closed()
        if not self._is_checked:
            await self.check()
        try:
            return await run(self.client, calls)
        except BaseException:
            # A ready client connects again unseen; of ours each connection is looked at when it is made.
            if not self.is_ours:
                self._is_checked = False
            raise

    async def check(self) -> None:
        """Make sure that nothing the server has lost comes back.

        Raises:
            Exception: it cannot be made sure, and is tried again before the next command.
        """
        self._refuse_closed()
        try:
            await look_at(self.client, self._incarnation.check)
        except BaseException:
            self._is_checked = False
            raise
        self._is_checked = True

    async def put_in_step(self) -> None:
        """Close the idle connections of a client of ours, one of which hands out other answers than were asked for."""
        if self.is_ours:
            await put_in_step(self.client)

    async def close(self) -> None:
        """Close a client of ours, or one that was made in the place of a given one."""
        if self.is_ours or isinstance(self.client, Twin):
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                await self.client.aclose()
