"""How a network between a client and a server is made to fail."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Self

from .ports import PROXIES, free_port


@dataclass
class _Knobs:
    delay: float = 0.0
    swallow: bool = False
    reset: bool = False
    cut_after: int | None = None


class TcpProxy:
    """A proxy before one server, run by a thread of its own.

    Args:
        host: the server's host.
        port: the server's port.
        tls: makes clients speak TLS, as far as the proxy.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.port = free_port(PROXIES)
        self._tls = tls
        self._target = (host, port)
        self._knobs = _Knobs()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy", daemon=True)
        self._listener: asyncio.Server | None = None
        self._pairs: set[asyncio.Task[None]] = set()
        self.accepted = 0

    @classmethod
    @contextlib.contextmanager
    def start(cls, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> Iterator[Self]:
        """Pass everything on until told otherwise.

        Args:
            host: the server's host.
            port: the server's port.
            tls: makes clients speak TLS, as far as the proxy.
        """
        proxy = cls(host, port, tls)
        proxy._thread.start()
        try:
            proxy._do(proxy._listen())
            yield proxy
        finally:
            proxy._do(proxy._close())
            proxy._loop.call_soon_threadsafe(proxy._loop.stop)
            proxy._thread.join()
            proxy._loop.close()

    def __repr__(self) -> str:
        return f"<TcpProxy {self.port} -> {self._target[0]}:{self._target[1]}, {self._knobs}>"

    @property
    def host(self) -> str:
        """Where it listens."""
        return "127.0.0.1"

    @property
    def connections(self) -> int:
        """How many connections it holds now."""
        return len(self._pairs)

    def pass_through(self) -> None:
        """Do nothing but pass on; connections that are open keep what befell them."""
        self._set(_Knobs())

    def delay(self, seconds: float) -> None:
        """Hold every piece back by this time, in both directions."""
        self._set(_Knobs(delay=seconds))

    def black_hole(self) -> None:
        """Accept connections and bytes, and pass nothing on."""
        self._set(_Knobs(swallow=True))

    def reset(self) -> None:
        """Accept connections and reset them, those that are open too."""
        self._set(_Knobs(reset=True))
        self._do(self._drop())

    def refuse(self) -> None:
        """Listen no more and reset what is open, as a machine does whose server has died."""
        self._do(self._close())

    def cut(self, after: int) -> None:
        """Reset each connection after so many more bytes of the server's replies."""
        self._set(_Knobs(cut_after=after))

    def drop(self) -> None:
        """Reset all open connections, once."""
        self._do(self._drop())

    def _set(self, knobs: _Knobs) -> None:
        self._knobs = knobs
        self._do(self._listen())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accepted, self.host, self.port, ssl=self._tls)

    async def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self._drop()

    async def _drop(self) -> None:
        pairs = list(self._pairs)
        for pair in pairs:
            pair.cancel()
        await asyncio.gather(*pairs, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        pair = self._loop.create_task(self._connected(reader, writer))
        self._pairs.add(pair)
        pair.add_done_callback(self._pairs.discard)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._knobs.reset:
                raise ConnectionResetError
            server_reader, server_writer = await asyncio.open_connection(*self._target)
            try:
                await self._both_ways((reader, server_writer), (server_reader, writer))
            finally:
                server_writer.transport.abort()
        except (OSError, EOFError, asyncio.CancelledError):
            _reset(writer)
        finally:
            writer.close()

    async def _both_ways(
        self,
        there: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        back: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        passed = 0

        def allowed(piece: bytes) -> bytes:
            nonlocal passed
            limit = self._knobs.cut_after
            piece = piece if limit is None else piece[: max(0, limit - passed)]
            passed += len(piece)
            return piece

        ways = [
            self._loop.create_task(self._pass(*there, lambda piece: piece)),
            self._loop.create_task(self._pass(*back, allowed)),
        ]
        try:
            await asyncio.gather(*ways)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, allowed: Callable[[bytes], bytes]
    ) -> None:
        while piece := await reader.read(65_536):
            if self._knobs.delay:
                await asyncio.sleep(self._knobs.delay)
            if self._knobs.swallow:
                continue
            rest = allowed(piece)
            writer.write(rest)
            await writer.drain()
            if len(rest) < len(piece):
                raise ConnectionResetError
        # Over TLS nobody can say that he has said all and go on listening.
        if self._knobs.swallow or not writer.can_write_eof():
            raise EOFError
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    # Without lingering a closed socket says RST and not FIN; one that was itself reset is closed already.
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
