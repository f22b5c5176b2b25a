"""How many connections clients hold to the front, and how old they are."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

CONTROL = "/__control__"
_CONTROL_REQUESTS = tuple(f"{method} {CONTROL}".encode() for method in ("GET", "POST"))


@dataclass(eq=False)
class Connection:
    """One client's connection."""

    transport: asyncio.Transport
    opened_at: float = field(default_factory=time.monotonic)


class Connections:
    """The open connections of clients; those of the control requests are not among them."""

    def __init__(self) -> None:
        self.open: dict[object, Connection] = {}
        self.reset()

    def reset(self) -> None:
        """Begin to count anew with those that are open now."""
        self.most = len(self.open)
        self.opened = 0
        self.oldest_used = 0.0

    def add(self, connection: Connection) -> None:
        """Count a connection that has sent its first bytes."""
        self.open[connection.transport.get_extra_info("peername")] = connection
        self.opened += 1
        self.most = max(self.most, len(self.open))

    def used(self, client: object) -> None:
        """Note the age of a connection that carries a request."""
        if connection := self.open.get(client):
            self.oldest_used = max(self.oldest_used, time.monotonic() - connection.opened_at)

    def remove(self, connection: Connection) -> None:
        """Forget a closed connection."""
        # Its address may be another's by now.
        for client, known in list(self.open.items()):
            if known is connection:
                del self.open[client]


def counting_protocol(connections: Connections) -> type[H11Protocol]:
    """Return uvicorn's protocol, made to report its connections."""

    class CountingProtocol(H11Protocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._connection: Connection | None = None
            self._silent = True

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
            super().connection_made(transport)
            self._connection = Connection(transport)

        def data_received(self, data: bytes) -> None:
            # What kind of client it is shows with the first bytes only.
            if self._silent and self._connection and not data.startswith(_CONTROL_REQUESTS):
                connections.add(self._connection)
            self._silent = False
            super().data_received(data)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self._connection:
                connections.remove(self._connection)

    return CountingProtocol
