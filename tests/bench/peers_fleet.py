"""Four processes that miss one user together: how often each cache asks the database, beside the same Redis."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import redis

from ctxmiddleware import ContextPlugin, Identity
from examples.servers import Valkey
from tests.cache.rig import PATIENT
from tests.waiting import eventually_async

from . import peers
from .peers import Database, Peer

PROCESSES = 4
CALLERS = 250
# How many processes have their connections open, and their answers; and how often the database was asked.
READY, DONE, LOADS = "ready", "done", "loads"
ADA = "ada@example.org"


class Counted(Database):
    """One row whose loads are counted in Redis, over all processes."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._client = redis.Redis.from_url(url)

    async def read(self) -> str:
        """Load the row."""
        self._client.incr(LOADS)
        return await super().read()


async def ours(database: Database, url: str) -> Peer:
    """Ctxmiddleware beside Redis."""

    class Source:
        label = "one database"

        async def fetch(self, identity: Identity) -> str:
            return await database.read() if identity.name == ADA else "opened"

    # A busy machine is late with answers: what is measured is who asks, and not for how long anything is waited for.
    plugin = ContextPlugin(source=Source(), context_type=str, redis=url, redis_options=PATIENT)
    await plugin.resolve("opened@example.org")
    redis_tier = plugin._assembly.redis
    assert redis_tier is not None
    await eventually_async(redis_tier.is_heard)

    async def read() -> str:
        return str((await plugin.resolve(ADA)).context)

    return Peer(read, lambda: plugin.invalidate(ADA))


async def cashews(database: Database, url: str) -> Peer:
    """Cashews with its Redis backend and its lock against crowds."""
    from cashews import Cache

    cache = Cache()
    cache.setup(url)

    @cache(ttl=60, key="ada", lock=True)
    async def read() -> str:
        return await database.read()

    await cache.get("opened")
    return Peer(read, lambda: cache.delete("ada"))


async def aiocache(database: Database, url: str) -> Peer:
    """Aiocache with its Redis backend and its decorator against crowds."""
    from aiocache import RedisCache, cached_stampede

    cache = RedisCache(endpoint="127.0.0.1", port=urlsplit(url).port, pool_max_size=2 * CALLERS)
    decorated = cached_stampede(ttl=60, key_builder=lambda *_, **__: "ada", lease=2)

    async def load() -> str:
        return await database.read()

    read = decorated(load)
    decorated.cache = cache
    read.cache = cache
    await cache.get("opened")
    return Peer(read, lambda: cache.delete("ada"))


def _alone(make: peers.Make) -> Callable[[Database, str], Awaitable[Peer]]:
    async def made(database: Database, url: str) -> Peer:
        return await make(database)

    return made


MADE: dict[str, Callable[[Database, str], Awaitable[Peer]]] = {
    "ctxmiddleware": ours,
    "cashews": cashews,
    "aiocache": aiocache,
    # They have no tier that processes share.
    "theine": _alone(peers.theine),
    "async-lru": _alone(peers.async_lru),
}


def loads(name: str) -> str:
    """Return how often the database was asked, in words, where four processes miss together."""
    with Valkey.start() as server, redis.Redis.from_url(server.url) as client:
        command = [sys.executable, "-m", __name__, name, server.url]
        children = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(PROCESSES)]
        ended = [child.communicate(timeout=120)[1] for child in children]
        if any(child.returncode for child in children):
            return f"failed ({ended[0].strip().splitlines()[-1][:60]})"
        count = int(client.get(LOADS) or 0)
    return f"{count} load{'' if count == 1 else 's'}"


async def _child(name: str, url: str) -> None:
    peer = await MADE[name](Counted(url), url)
    with redis.Redis.from_url(url) as client:
        await _all_are(READY, client)
        answers = await asyncio.wait_for(asyncio.gather(*(peer.read() for _ in range(CALLERS))), 60)
        # One that ends at once takes with it what it still had to say to the others.
        await _all_are(DONE, client)
    if answers != ["old"] * CALLERS:
        raise SystemExit("somebody got another answer")


async def _all_are(what: str, client: redis.Redis) -> None:
    client.incr(what)
    await eventually_async(lambda: int(client.get(what) or 0) == PROCESSES)


if __name__ == "__main__":
    asyncio.run(_child(sys.argv[1], sys.argv[2]))
