"""One server of a cluster: how it is spoken to, whether it is asked, and what it has been looked at for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

import anyio

from ....breaker import Breaker
from ..options import RedisOptions
from .connection import Admit, Command, Send, Server
from .driver import Call, look_at, put_in_step, run
from .target import Place

Make: TypeAlias = Callable[[Place, Admit, bool], Server]
"""Makes a client of a place, with what looks at each new connection, and whether it has one connection only."""

Ask: TypeAlias = Callable[[Place, Sequence[Command]], Awaitable[list[object]]]
"""Asks one server over a connection that is closed afterwards."""

CLOSE_SECONDS: Final = 2.0


class Reach(NamedTuple):
    """How the nodes of a cluster are spoken to.

    Args:
        places: who is asked for the others at first.
        ask: asks one of them.
        make: makes a client of one of them.
        remap: turns an address as the cluster names it into one that leads there.
    """

    places: tuple[Place, ...]
    ask: Ask
    make: Make
    remap: Callable[[Place], Place]


class Node:
    """One server of a cluster.

    Args:
        place: where it is.
        make: makes its clients.
        look: looks at the server that has some buckets, over a new connection.
        options: timeouts and sizes.
    """

    def __init__(
        self, place: Place, make: Make, look: Callable[[frozenset[int]], Admit], options: RedisOptions
    ) -> None:
        self._place = place
        self._look = look
        self._buckets: frozenset[int] = frozenset()
        self._is_looked_at = True
        self.breaker = Breaker(options.fault_threshold)
        self.pool = make(place, self.admit, False)  # noqa: FBT003 - as the type says
        self.own = make(place, self.admit, True)  # noqa: FBT003 - as the type says

    def __repr__(self) -> str:
        return f"<Node {self._place.host}:{self._place.port}, {len(self._buckets)} buckets, {self.breaker!r}>"

    def has(self, buckets: frozenset[int]) -> None:
        """Take note of which buckets it has now."""
        # Its open connections were looked at for what it had then.
        if not buckets <= self._buckets:
            self._is_looked_at = False
        self._buckets = buckets

    async def admit(self, send: Send) -> None:
        """Look at it for the buckets it has."""
        await self._look(self._buckets)(send)

    async def run(self, client: Server, calls: Sequence[Call]) -> list[object]:
        """Carry out scripts in one trip, over one of its clients."""
        if not self._is_looked_at:
            buckets = self._buckets
            await look_at(client, self.admit)
            self._is_looked_at = buckets == self._buckets
        return await run(client, calls)

    async def put_in_step(self) -> None:
        """Close all idle connections."""
        for client in (self.pool, self.own):
            await put_in_step(client)

    async def close(self) -> None:
        """Close all connections."""
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            for client in (self.pool, self.own):
                await client.aclose()
