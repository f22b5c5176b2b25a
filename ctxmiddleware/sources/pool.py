"""How many connections a loop may have, how old they may become, and who gets the next one."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup

from ..errors import NotOpen
from ..option import Count, Seconds, check_options, documented

logger = logging.getLogger("ctxmiddleware.sources")

# A server hears of a closed connection after we closed it: without a pause it was seen to hold 9 where 8 are allowed.
_LINGER: Final = 0.05
CLOSE_WITHIN: Final = 1.0


@documented
@dataclass(frozen=True, slots=True)
class PoolOptions:
    """The HTTP connections of one event loop."""

    max_connections: int = Count(
        "Connections to the database's API, to all servers together, per event loop.", least=1
    ).default(20)
    pool_timeout: float = Seconds("Seconds a request waits for a free one of them before it fails.", over=0).default(
        30.0
    )
    recycle: float = Seconds(
        "Seconds after which each of them is closed, idle or busy.", over=0, variable="DB_POOL_RECYCLE"
    ).default(3600.0)
    keepalive: float = Seconds(
        "Seconds an idle one is kept; middleboxes drop silent connections without notice.", over=0, variable=None
    ).default(60.0)
    connect_timeout: float = Seconds("Seconds to reach the server, TLS included.", over=0, variable=None).default(2.0)
    read_timeout: float = Seconds(
        "Seconds of silence after which a response is given up.", over=0, variable=None
    ).default(5.0)
    total_timeout: float = Seconds(
        "Seconds one request may take from connecting to the last byte.", over=0, variable=None
    ).default(10.0)

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def retire_before(self) -> float:
        """Seconds before `recycle` from which a connection is lent no more, so that none dies under a request."""
        return min(self.total_timeout, self.recycle / 5)


class Closable(Protocol):
    """A connection as the pool sees it."""

    async def aclose(self) -> None:
        """Close it, whatever it is doing."""
        ...


C = TypeVar("C", bound=Closable)


class NoPlace(Exception):
    """All connections stayed busy for the whole of `pool_timeout`."""


@dataclass(slots=True, eq=False)
class Held(Generic[C]):
    """One connection and its dates, in seconds of the pool's clock.

    Args:
        connection: the connection itself.
        origin: the server it leads to.
        lend_until: from then on no request is sent on it.
        dies_at: when it is closed even under a request.
    """

    connection: C
    origin: str
    lend_until: float
    dies_at: float
    idle_since: float = field(default=0.0)


class Pool(Generic[C]):
    """Lends connections of which there are never more than allowed, and closes each before it is too old.

    Every connection that is not idle holds a place, until it is closed for good; so the idle ones and the places
    taken, together, never pass `max_connections` once a borrower has its connection.

    Args:
        options: the limits to obey.
        connect: makes a connection to an origin, without I/O.
        tasks: where connections are closed; it belongs to the pool's owner and ends after it.
        clock: monotonic seconds, by which connections come of age.
        close_within: seconds after which a connection that does not close is given up.
    """

    def __init__(
        self,
        options: PoolOptions,
        connect: Callable[[str], C],
        tasks: TaskGroup,
        *,
        clock: Callable[[], float] = time.monotonic,
        close_within: float = CLOSE_WITHIN,
    ) -> None:
        self._options = options
        self._connect = connect
        self._tasks = tasks
        self._clock = clock
        self._close_within = close_within
        self._places = anyio.Semaphore(options.max_connections, max_value=options.max_connections)
        self._idle: list[Held[C]] = []
        self._busy: set[Held[C]] = set()
        self.closed = False

    def __repr__(self) -> str:
        return f"<Pool: {len(self._busy)} busy, {len(self._idle)} idle, of {self._options.max_connections}>"

    @asynccontextmanager
    async def lend(self, origin: str, *, fresh: bool = False) -> AsyncIterator[Held[C]]:
        """Lend a connection; it is kept when the block ends well and closed when it does not.

        Args:
            origin: the server it must lead to.
            fresh: refuse one that was used before.

        Raises:
            NoPlace: none became free in time.
        """
        await self._place()
        try:
            held = await self._take(origin, fresh=fresh)
        except BaseException:
            self._places.release()
            raise
        self._busy.add(held)
        try:
            yield held
        except BaseException:
            self._discard(held)
            raise
        self._give_back(held)

    async def tend(self) -> None:
        """Close idle connections as they come of age, for ever."""
        pause = min(self._options.retire_before, self._options.keepalive) / 2
        while True:
            await anyio.sleep(pause)
            self._retire_idle()

    async def aclose(self) -> None:
        """Close every connection; a request that is on its way fails."""
        self.closed = True
        for held in [*self._idle, *self._busy]:
            await self._close(held)
        self._idle.clear()

    def _check_open(self) -> None:
        if self.closed:
            raise NotOpen("the connections to Supabase were closed: use the source inside `async with`")

    async def _place(self) -> None:
        self._check_open()
        try:
            with anyio.fail_after(self._options.pool_timeout):
                await self._places.acquire()
        except TimeoutError:
            raise NoPlace from None

    async def _take(self, origin: str, *, fresh: bool) -> Held[C]:
        kept = None if fresh or self.closed else self._pick(origin)
        if kept is not None:
            return kept
        while self._idle and len(self._idle) + self._places_taken > self._options.max_connections:
            await self._close_and_linger(self._idle.pop(0))
        # Closed while this one waited: a connection opened now would be closed by nobody.
        self._check_open()
        now = self._clock()
        end = now + self._options.recycle
        dies_at = end - min(1.0, self._options.recycle / 10)
        return Held(self._connect(origin), origin, end - self._options.retire_before, dies_at)

    def _pick(self, origin: str) -> Held[C] | None:
        now = self._clock()
        # The last used first: the others fall silent and are closed, and the pool shrinks with its traffic.
        for index in range(len(self._idle) - 1, -1, -1):
            if self._idle[index].origin == origin and not self._is_old(self._idle[index], now):
                return self._idle.pop(index)
        return None

    @property
    def _places_taken(self) -> int:
        return self._options.max_connections - self._places.value

    def _is_old(self, held: Held[C], now: float) -> bool:
        return now >= held.lend_until or now - held.idle_since >= self._options.keepalive

    def _give_back(self, held: Held[C]) -> None:
        held.idle_since = self._clock()
        if self.closed or self._is_old(held, held.idle_since):
            self._discard(held)
            return
        self._busy.discard(held)
        self._idle.append(held)
        self._places.release()

    def _discard(self, held: Held[C]) -> None:
        self._busy.discard(held)
        if self.closed:
            self._places.release()
        else:
            self._tasks.start_soon(self._close_then_release, held)

    def _retire_idle(self) -> None:
        now = self._clock()
        for held in [held for held in self._idle if self._is_old(held, now)]:
            try:
                self._places.acquire_nowait()
            except anyio.WouldBlock:
                return  # a borrower was just given the place and takes or closes an idle one itself; the rest next time
            self._idle.remove(held)
            self._tasks.start_soon(self._close_then_release, held)

    async def _close_then_release(self, held: Held[C]) -> None:
        try:
            await self._close_and_linger(held)
        finally:
            self._places.release()

    async def _close_and_linger(self, held: Held[C]) -> None:
        with anyio.CancelScope(shield=True):
            await self._close(held)
            await anyio.sleep(_LINGER)

    async def _close(self, held: Held[C]) -> None:
        try:
            with anyio.move_on_after(self._close_within, shield=True):
                await held.connection.aclose()
        except Exception as error:  # noqa: BLE001 - a broken connection may break while it closes; its place is freed
            logger.debug("a connection to Supabase failed while it was closed (%s)", type(error).__name__)
