"""How the front asks PostgREST: HTTP/1.1 on kept connections, with as little of its own time as can be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

Headers = list[tuple[bytes, bytes]]
# Those that belong to one connection and not to the message.
_HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"host"))


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes


class Upstream:
    """A pool of connections to one address; it grows with the requests under way.

    Args:
        host: where PostgREST listens.
        port: its port.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, method: str, target: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Reply:
        """Send one request and read its whole reply.

        Raises:
            OSError: nobody answers.
            EOFError: the connection ended in the middle of the reply.
        """
        request = self._encoded(method, target, headers, body)
        while self._idle:
            try:
                return await self._exchange(*self._idle.pop(), request, method)
            except (OSError, EOFError):
                # It was closed while it lay idle: that says nothing about the server.
                continue
        reader, writer = await asyncio.open_connection(self._host, self._port)
        return await self._exchange(reader, writer, request, method)

    def _encoded(self, method: str, target: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
        lines = [f"{method} ".encode() + target + b" HTTP/1.1", f"host: {self._host}:{self._port}".encode()]
        lines += [name + b": " + value for name, value in headers if name.lower() not in _HOP_BY_HOP]
        if body or method not in ("GET", "HEAD"):
            lines.append(b"content-length: %d" % len(body))
        return b"\r\n".join([*lines, b"", body])

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, method: str
    ) -> Reply:
        try:
            writer.write(request)
            status, headers = _head(await reader.readuntil(b"\r\n\r\n"))
            reply = Reply(status, headers, await _body(reader, method, status, headers))
        except BaseException:
            # Half a reply would be the next one's beginning.
            writer.close()
            raise
        if any(name.lower() == b"connection" and value.lower() == b"close" for name, value in headers):
            writer.close()
        else:
            self._idle.append((reader, writer))
        return Reply(reply.status, [pair for pair in headers if pair[0].lower() not in _HOP_BY_HOP], reply.body)


def _head(raw: bytes) -> tuple[int, Headers]:
    first, *lines = raw[:-4].split(b"\r\n")
    pairs = (line.partition(b":") for line in lines)
    return int(first.split(b" ", 2)[1]), [(name, value.strip()) for name, _, value in pairs]


async def _body(reader: asyncio.StreamReader, method: str, status: int, headers: Headers) -> bytes:
    if method == "HEAD" or status in (204, 304):
        return b""
    named = {name.lower(): value for name, value in headers}
    if named.get(b"transfer-encoding", b"").lower() != b"chunked":
        return await reader.readexactly(int(named.get(b"content-length", b"0")))
    chunks = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        chunks.append((await reader.readexactly(size + 2))[:-2])
    await reader.readuntil(b"\r\n")
    return b"".join(chunks)
