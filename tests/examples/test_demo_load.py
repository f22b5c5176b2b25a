"""Whether the load driver counts what it sends and believes no answer that is not right."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from examples.demo.load import Ask, Limits, LoadFailed, Run, drive

from ..backends import ASYNCIO

# The loop it is run in by the demo.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", [ASYNCIO])]

ASK = Ask.me("Ana@example.com", "token")
FIFTY = Limits(50, 5, 3)
RIGHT = b'{"email":"ana@example.com","zones":[]}'


class Answering(asyncio.Protocol):
    """Answers every request with the same pieces, each in a turn of its own; without pieces it hangs up.

    Args:
        pieces: what is sent.
        opened: where its transport is noted.
    """

    def __init__(self, pieces: tuple[bytes, ...], opened: list[asyncio.Transport]) -> None:
        self._pieces = pieces
        self._opened = opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the connection."""
        self._opened.append(cast("asyncio.Transport", transport))
        self._transport = self._opened[-1]

    def data_received(self, data: bytes) -> None:
        """Answer."""
        assert data == ASK.request
        if not self._pieces:
            self._transport.abort()
        self._send(self._pieces)

    def _send(self, pieces: tuple[bytes, ...]) -> None:
        if pieces and not self._transport.is_closing():
            self._transport.write(pieces[0])
            asyncio.get_running_loop().call_later(0.001, self._send, pieces[1:])


@asynccontextmanager
async def answering(*pieces: bytes) -> AsyncIterator[int]:
    """Serve an app that answers with these pieces, and give its port."""
    opened: list[asyncio.Transport] = []
    server = await asyncio.get_running_loop().create_server(lambda: Answering(pieces, opened), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for transport in opened:
            transport.abort()
        await server.wait_closed()


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    """Return a whole HTTP answer."""
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


async def driven(port: int, limits: Limits = FIFTY) -> Run:
    """Drive the same request again and again."""
    return await drive(port, itertools.repeat(ASK), limits, lambda done, answers: None)


async def test_as_many_requests_as_asked_for() -> None:
    """Each request is sent once and timed once, whatever the number of workers."""
    async with answering(answer(RIGHT)) as port:
        run = await driven(port)
    assert len(run.latencies) == 50
    assert 0 < max(run.latencies) <= run.seconds


async def test_no_longer_than_asked_for() -> None:
    """When the time is over, what is under way is answered and nothing more is sent."""
    async with answering(answer(RIGHT)) as port:
        run = await driven(port, Limits(10_000_000, 0.2, 3))
    assert 0.2 <= run.seconds < 5
    assert run.latencies


async def test_an_answer_in_pieces() -> None:
    """An answer that comes in pieces, cut in its head and in its body, is one answer."""
    whole = answer(RIGHT)
    async with answering(whole[:20], whole[20:50], whole[50:]) as port:
        assert len((await driven(port)).latencies) == 50


@pytest.mark.parametrize(
    ("pieces", "complaint"),
    [
        ((answer(b"broken", b"500 Internal Server Error"),), "answered with 500: broken"),
        ((answer(RIGHT.replace(b"ana", b"eve")),), "another person's context"),
        ((answer(b""),), "another person's context"),
        ((), "connection"),
    ],
)
async def test_a_wrong_answer(pieces: tuple[bytes, ...], complaint: str) -> None:
    """An error, another person's context, an empty answer or none at all ends the run and says so."""
    async with answering(*pieces) as port:
        with pytest.raises(LoadFailed, match=complaint):
            await driven(port)


async def test_nobody_there() -> None:
    """An app that does not listen is a failure of the load."""
    async with answering() as port:
        pass
    with pytest.raises(LoadFailed, match="connection"):
        await driven(port)
