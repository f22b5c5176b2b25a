"""A connection to Redis as it has to be: looked at before it is used, and not written to once it was lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeAlias

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from .target import Place

Command: TypeAlias = Sequence[bytes | str | int]
Send: TypeAlias = Callable[[Sequence[Command]], Awaitable[list[object]]]
"""Sends commands in one trip and returns their answers, errors of Redis among them."""
Admit: TypeAlias = Callable[[Send], Awaitable[None]]
"""Looks at a server over a new connection, and raises where that connection must not be used."""
Locate: TypeAlias = Callable[[], Awaitable[Place]]
"""Finds out where the server is now, for each new connection."""


class _Watched(AbstractConnection):
    """A connection that is used once the server behind it was looked at, and not written to once it was lost."""

    admit: Admit
    locate: Locate | None
    host: str
    port: int

    async def _connect(self) -> None:
        if self.locate is not None:
            self.host, self.port = await self.locate()
        await super()._connect()  # type: ignore[safe-super, no-untyped-call]  # of the class for the URL's scheme

    async def on_connect(self) -> None:
        """Do nothing: on a unix socket the driver would greet the server twice."""

    async def on_connect_check_health(
        self,
        check_health: bool = True,  # noqa: FBT001, FBT002 - the driver's own signature
    ) -> None:
        await super().on_connect_check_health(check_health)
        try:
            await self.admit(self._send)
        except BaseException:
            # The driver closes it after errors of its own only, and would use it as it is after any other.
            await self.disconnect(nowait=True)
            raise

    async def _send(self, commands: Sequence[Command]) -> list[object]:
        await self.send_packed_command(self.pack_commands(commands), check_health=False)
        return [await self._answer() for _ in commands]

    async def _answer(self) -> object:
        try:
            return await self.read_response()
        except ResponseError as error:
            return error

    def pack_command(self, *arguments: Any) -> list[bytes]:
        # An eighth of what the driver's own takes, which is most of what a look-up of many costs here.
        if type(arguments[0]) is bytes:
            return [hiredis.pack_command(arguments)]
        packed: list[bytes] = super().pack_command(*arguments)
        return packed

    async def send_packed_command(
        self,
        command: bytes | str | Iterable[bytes],
        check_health: bool = True,  # noqa: FBT001, FBT002 - the driver's own signature
    ) -> None:
        # Reset while it was idle, it looks sound to redis-py 8.1. Python 3.12, 3.13 up to 3.13.9 and 3.14.0 then either
        # raise a TypeError or, worse, go on watching the number of a closed socket, and whatever connection is given
        # that number next hangs (github.com/python/cpython/issues/136234).
        if self._writer is not None and self._writer.is_closing():
            raise RedisConnectionError("the connection was lost while it was idle")
        await super().send_packed_command(command, check_health)


def watched(kind: type[AbstractConnection], admit: Admit, locate: Locate | None = None) -> type[AbstractConnection]:
    """Return the class of connections of a kind that are looked at.

    Args:
        kind: the driver's class, which knows TCP, TLS or unix sockets.
        admit: called with each new connection before its first command.
        locate: finds the server for each new connection, in place of the host it was made with.
    """
    traits = {"admit": staticmethod(admit), "locate": None if locate is None else staticmethod(locate)}
    return type("_Watched", (_Watched, kind), traits)
