"""A connection of its own: commands that are put together, sent in one trip, and answered in their order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import anyio
import msgspec

from .lua.script import Script
from .order import answer_of
from .servers.driver import Connection

MAX_NEWS: Final = 1000

PUSHED: Final = object()

Streams: TypeAlias = dict[bytes, list[tuple[bytes, list[bytes]]]]
"""What was read of each stream: the place and the fields of each item."""


class Wire:
    """What an ear says and is told over its connection.

    Args:
        connection: connected, and used by nobody else.
        timeout: seconds for one answer.
        token: makes a value never used before.
    """

    def __init__(self, connection: Connection, timeout: float, token: Callable[[], bytes]) -> None:
        self._connection = connection
        self._timeout = timeout
        self._token = token
        self._known: set[str] = set()
        self._commands: list[tuple[bytes | str | int, ...]] = []
        self._tokens: list[bytes] = []

    async def track(self, prefix: bytes, touched: Callable[[Sequence[bytes] | None], None]) -> None:
        """Be told of every key with a prefix that is touched by anybody; of None where all are lost.

        Raises:
            Exception: the server does not tell.
        """

        async def pushed(message: Sequence[Any]) -> object:
            touched(message[1])
            return PUSHED

        # The driver has no other way to give it.
        self._connection._parser.set_invalidation_push_handler(pushed)  # type: ignore[attr-defined]  # RESP3 has it
        self._commands.append((b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", prefix))
        await self.send()
        await self._reply(self._timeout)

    def put(self, script: Script[Any], keys: Sequence[str], arguments: Sequence[bytes | str | int]) -> None:
        """Carry out a script on the next trip."""
        self._tokens.append(self._token())
        command = (b"EVALSHA", script.digest) if script.digest in self._known else (b"EVAL", script.text)
        self._known.add(script.digest)
        self._commands.append((*command, len(keys), *keys, self._tokens[-1], *arguments))

    def put_wait(self, seconds: float, streams: Sequence[str], places: Sequence[bytes]) -> None:
        """Wait for news, at the end of the next trip."""
        block_ms = max(1, int(seconds * 1000))
        self._commands.append((b"XREAD", b"COUNT", MAX_NEWS, b"BLOCK", block_ms, b"STREAMS", *streams, *places))

    async def send(self) -> None:
        """Send what was put together."""
        commands, self._commands = self._commands, []
        await self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)

    async def answer(self, script: Script[Any]) -> Any:
        """Return the answer of a script, in the order in which they were put."""
        return answer_of(script, self._tokens.pop(0), await self._reply(self._timeout))

    async def news(self, seconds: float) -> Streams:
        """Return what came while it waited so many seconds; nothing where nothing came."""
        found = await self._reply(seconds + self._timeout)
        # RESP2 has a list of pairs.
        return msgspec.convert(dict(found or {}), Streams)

    async def _reply(self, seconds: float) -> Any:
        # Told of a timeout of its own, the driver returns None in time, as if that were the reply, and leaves the reply
        # to whoever reads next.
        # Asked for what is pushed too: else it calls itself anew for each push, until the stack is full.
        with anyio.fail_after(seconds):
            while True:
                reply = await self._connection.read_response(timeout=math.inf, push_request=True)
                if reply is not PUSHED:
                    return reply
