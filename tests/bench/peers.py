"""What goes wrong elsewhere, here and there side by side: invalidation, cancellation and crowds during a load."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ctxmiddleware import ContextPlugin, Identity

LOAD_SECONDS = 0.05

Read = Callable[[], Awaitable[str]]


@dataclass
class Database:
    """One row, read when a load begins and handed over a moment later."""

    row: str = "old"
    loads: int = 0

    async def read(self) -> str:
        """Load the row."""
        self.loads += 1
        row = self.row
        await asyncio.sleep(LOAD_SECONDS)
        return row

    @property
    def told(self) -> str:
        """How often it was loaded, in words."""
        return f"{self.loads} load{'' if self.loads == 1 else 's'}"


@dataclass
class Peer:
    """A cache as its documentation says to use it: how to read through it, and how to forget."""

    read: Read
    forget: Callable[[], Awaitable[object]]


Make = Callable[[Database], Awaitable[Peer]]


async def ours(database: Database) -> Peer:
    """ctxmiddleware, in memory."""

    class Source:
        async def fetch(self, identity: Identity) -> str:
            return await database.read()

    plugin = ContextPlugin(source=Source(), context_type=str)

    async def read() -> str:
        return str((await plugin.resolve("ada@example.org")).context)

    return Peer(read, lambda: plugin.invalidate("ada@example.org"))


async def cashews(database: Database) -> Peer:
    """Cashews with its memory backend and its lock against crowds."""
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://")

    @cache(ttl=60, key="ada", lock=True)
    async def read() -> str:
        return await database.read()

    return Peer(read, lambda: cache.delete("ada"))


async def aiocache(database: Database) -> Peer:
    """Aiocache with its memory backend and its decorator against crowds."""
    from aiocache import SimpleMemoryCache, cached_stampede

    cache = SimpleMemoryCache()
    decorated = cached_stampede(ttl=60, key_builder=lambda *_, **__: "ada", lease=2)

    async def load() -> str:
        return await database.read()

    read = decorated(load)
    decorated.cache = cache
    read.cache = cache
    return Peer(read, lambda: cache.delete("ada"))


async def theine(database: Database) -> Peer:
    """Theine's Memoize."""
    from datetime import timedelta

    from theine import Memoize

    @Memoize(1000, timedelta(seconds=60))
    async def read(key: str) -> str:
        return await database.read()

    read.key(lambda key: key)

    async def forget() -> None:
        read._cache.delete("ada")

    return Peer(lambda: read("ada"), forget)


async def async_lru(database: Database) -> Peer:
    """async-lru's decorator."""
    from async_lru import alru_cache

    @alru_cache(ttl=60)
    async def read(key: str) -> str:
        return await database.read()

    async def forget() -> None:
        read.cache_invalidate("ada")

    return Peer(lambda: read("ada"), forget)


PEERS: dict[str, Make] = {
    "ctxmiddleware": ours,
    "cashews": cashews,
    "aiocache": aiocache,
    "theine": theine,
    "async-lru": async_lru,
}


async def forgotten_during_a_load(make: Make) -> str:
    """Delete while a load runs, then read: is the answer fresh?"""
    database = Database()
    peer = await make(database)
    first = asyncio.create_task(_awaited(peer.read()))
    await asyncio.sleep(LOAD_SECONDS / 2)
    database.row = "new"
    await peer.forget()
    await first
    return "right" if await peer.read() == "new" else "stale until its time ends"


async def first_of_twenty_cancelled(make: Make) -> str:
    """The first of 20 callers is cancelled: how many of the others are served, by how many loads?"""
    database = Database()
    peer = await make(database)
    callers = [asyncio.create_task(_awaited(peer.read())) for _ in range(20)]
    await asyncio.sleep(LOAD_SECONDS / 2)
    callers[0].cancel()
    answers = await asyncio.wait_for(asyncio.gather(*callers[1:], return_exceptions=True), 5)
    return f"{sum(answer == 'old' for answer in answers)} of 19, {database.told}"


async def a_thousand_at_once(make: Make) -> str:
    """A thousand callers miss together: how many loads?"""
    database = Database()
    peer = await make(database)
    await asyncio.wait_for(asyncio.gather(*(peer.read() for _ in range(1000))), 30)
    return database.told


CASES = {
    "delete while a load runs, then read": forgotten_during_a_load,
    "first of 20 callers cancelled: others served": first_of_twenty_cancelled,
    "1,000 concurrent misses of one user": a_thousand_at_once,
}


async def _awaited(answer: Awaitable[str]) -> str:
    # Not every peer gives a coroutine, which is what a task takes.
    return await answer


async def _outcome(case: Callable[[Make], Awaitable[str]], make: Make) -> str:
    try:
        return await case(make)
    except ImportError as error:
        return f"not installed ({error.name})"
    except TimeoutError:
        return "no answer in time"


async def run() -> dict[str, dict[str, str]]:
    """Return, for each case, what each peer did."""
    return {name: {peer: await _outcome(case, make) for peer, make in PEERS.items()} for name, case in CASES.items()}
