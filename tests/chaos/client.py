"""How the fleet is asked: one request at a time over a kept connection, closed as soon as anything goes wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reply:
    """An answer as it was read."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return what the body says."""
        return json.loads(self.body)


class Connection:
    """A connection to one process, opened when it is needed.

    Args:
        port: the process's.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, target: str, headers: Mapping[str, str], *, timeout: float) -> Reply:
        """Send a request and read its answer; whatever goes wrong, no later request meets what is left of it.

        Raises:
            OSError: there is no connection, or it was lost.
            TimeoutError: no answer within the time.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._exchange(method, target, headers)
        except asyncio.IncompleteReadError as error:
            self.close()
            raise ConnectionResetError("the connection was closed before the answer was whole") from error
        except BaseException:
            self.close()
            raise

    async def _exchange(self, method: str, target: str, headers: Mapping[str, str]) -> Reply:
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        lines = (f"{name}: {value}" for name, value in headers.items())
        head = "\r\n".join((f"{method} {target} HTTP/1.1", "Host: fleet", "Content-Length: 0", *lines, "", ""))
        writer.write(head.encode("latin-1"))
        status, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        given = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in fields)}
        body = await reader.readexactly(int(given.get("content-length", 0)))
        if given.get("connection") == "close":
            self.close()
        return Reply(int(status.split()[1]), given, body)

    def close(self) -> None:
        """Close it."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """Give a connection for as long as it is needed."""
    connection = Connection(port)
    try:
        yield connection
    finally:
        connection.close()
