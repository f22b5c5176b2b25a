"""How the traffic is driven: a closed loop over kept connections, as lean as can be, every answer checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

# An app that answers nothing for this long is broken, and the demo says so.
_PATIENCE = 60.0
_LOOKED_AT_EVERY = 0.1


class LoadFailed(Exception):
    """An app gave a wrong answer, or none."""


@dataclass(frozen=True)
class Ask:
    """One request and how its right answer begins.

    Args:
        request: the bytes to send.
        answer: the first bytes of the body.
    """

    request: bytes
    answer: bytes

    @classmethod
    def me(cls, email: str, token: str) -> Ask:
        """Ask for /me as somebody."""
        lines = ("GET /me HTTP/1.1", "Host: demo", f"Authorization: Bearer {token}", "", "")
        return cls("\r\n".join(lines).encode(), f'{{"email":"{email.lower()}",'.encode())


@dataclass
class Run:
    """What came of some requests.

    Args:
        seconds: from the first connection to the last answer.
        latencies: seconds of each request.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Limits:
    """When a run ends: at the first of these.

    Args:
        requests: how many are sent.
        seconds: for how long requests are sent.
        concurrency: how many are under way at any moment.
    """

    requests: int
    seconds: float
    concurrency: int


async def drive(port: int, asks: Iterator[Ask], limits: Limits, progress: Callable[[float, int], None]) -> Run:
    """Send requests, each worker its next one when it has its answer, and return how long they took.

    Args:
        port: the app's.
        asks: what to send; it goes on where an earlier run stopped.
        limits: when to end.
        progress: called now and then with the share that is done and the number of answers.

    Raises:
        LoadFailed: an answer was wrong, or did not come.
    """
    run, began = Run(), time.perf_counter()
    end, left = began + limits.seconds, limits.requests

    async def work(connection: _Connection) -> None:
        nonlocal left
        while left > 0 and time.perf_counter() < end:
            left -= 1
            ask = next(asks)
            sent = time.perf_counter()
            await connection.exchange(ask)
            run.latencies.append(time.perf_counter() - sent)

    try:
        async with (
            asyncio.timeout(limits.seconds + _PATIENCE),
            _connections(port, limits.concurrency) as connections,
            asyncio.TaskGroup() as tasks,
        ):
            workers = [tasks.create_task(work(connection)) for connection in connections]
            while not all(worker.done() for worker in workers):
                by_time = (time.perf_counter() - began) / limits.seconds
                progress(min(1.0, max(by_time, len(run.latencies) / limits.requests)), len(run.latencies))
                await asyncio.wait(workers, timeout=_LOOKED_AT_EVERY)
            run.seconds = time.perf_counter() - began
    except* OSError as errors:
        raise LoadFailed(f"the connection failed: {errors.exceptions[0]}") from None
    except* LoadFailed as failures:
        raise LoadFailed(str(failures.exceptions[0])) from None
    except* TimeoutError:
        raise LoadFailed(f"no answer for {_PATIENCE:g} s") from None
    return run


@asynccontextmanager
async def _connections(port: int, number: int) -> AsyncIterator[list[_Connection]]:
    async with AsyncExitStack() as exits:
        opened = []
        for _ in range(number):
            _, connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", port)
            exits.push_async_callback(connection.close)
            opened.append(connection)
        yield opened


class _Connection(asyncio.Protocol):
    """One kept connection with one request on it at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._waiting: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()

    async def exchange(self, ask: Ask) -> None:
        """Send a request and take its answer; a wrong one raises LoadFailed."""
        if self._transport is None:
            raise LoadFailed("the app closed the connection")
        self._received.clear()
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(ask.request)
        await self._waiting
        head, _, body = bytes(self._received).partition(b"\r\n\r\n")
        status = head[9:12]
        if status != b"200":
            raise LoadFailed(f"a request was answered with {status.decode()}: {body[:200].decode(errors='replace')}")
        if not body.startswith(ask.answer):
            raise LoadFailed("a request was answered with another person's context")

    async def close(self) -> None:
        """Close it; nothing is under way any more."""
        if self._transport is not None:
            self._transport.abort()
        await self._lost.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream connection has no other
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        _, _, rest = head.partition(b"content-length:")
        if len(self._received) - end - 4 >= int(rest.split(b"\r\n", 1)[0] or 0):
            self._settle(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._lost.set()
        self._settle(exc or ConnectionResetError("the app closed the connection"))

    def _settle(self, failure: Exception | None) -> None:
        if self._waiting is None or self._waiting.done():
            return
        if failure is None:
            self._waiting.set_result(None)
        else:
            self._waiting.set_exception(failure)
