"""What a flood of forged identities costs those who are real, memory, Redis and the source."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import anyio
import redis

from ctxmiddleware import (
    BatchSource,
    CachePolicy,
    ContextPlugin,
    Identity,
    Loaded,
    UserContext,
    UserContextMiddleware,
)
from ctxmiddleware.cache.tiered import TieredCache
from examples.servers import Valkey
from tests.asgi import ask, http_scope, no_lifespan
from tests.cache.rig import PATIENT
from tests.people import by_header, context_of

FORGED = 200_000
REAL = 1_000
# So many forged requests at a time, and a request of somebody real after each so many of them.
AT_ONCE = 500
REAL_EVERY = 10
POLICY = CachePolicy(max_users=REAL, max_unknown=1_000, max_bytes=16 * 1024 * 1024, max_loads=8, max_waiting=2_000)


class Counted(BatchSource[UserContext]):
    """Knows the real users and counts what it is asked: for them, for others, and at a time."""

    label = "counted"

    def __init__(self, real: Sequence[str], seconds: float) -> None:
        self._known = {email: context_of(email) for email in real}
        self._seconds = seconds
        self.held = anyio.Event()
        self.held.set()
        self.calls = self.real = self.forged = self.under_way = self.most = 0

    async def fetch(self, identity: Identity) -> Loaded[UserContext]:
        """Return a real user's context, and None for another."""
        return (await self.fetch_many([identity]))[identity]

    async def fetch_many(self, identities: Sequence[Identity]) -> dict[Identity, Loaded[UserContext]]:
        """Do so for many."""
        self.calls += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        real = sum(each.name in self._known for each in identities)
        self.real += real
        self.forged += len(identities) - real
        await anyio.sleep(self._seconds)
        await self.held.wait()
        self.under_way -= 1
        return {each: Loaded(self._known.get(each.name), "source") for each in identities}


@dataclass
class Found:
    """What was seen during a flood.

    Args:
        forged: forged requests.
        statuses: how often they were answered with which status.
        real: requests of real users meanwhile.
        hits: of those, how many memory answered.
        slowest_ms: milliseconds the slowest of them took.
        source: what the source was asked.
        most_users: entries in memory at most, known and unknown.
        most_bytes: bytes they held at most.
        rss_mb: megabytes by which the process grew.
        redis_keys: keys in Redis afterwards.
        redis_mb: megabytes Redis held then.
        generation_s: seconds the generation of a forged name still has, at most.
        seconds: what it took.
    """

    forged: int
    statuses: dict[int, int]
    real: int
    hits: int
    slowest_ms: float
    source: Counted
    most_users: int
    most_bytes: int
    rss_mb: float
    redis_keys: int
    redis_mb: float
    generation_s: float
    seconds: float


def _rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class _Flood:
    def __init__(self, plugin: ContextPlugin[UserContext], real: Sequence[str], seen: Callable[[int], object]) -> None:
        self._plugin = plugin
        self._app = UserContextMiddleware(no_lifespan, plugin=plugin, required=True)
        self._real = real
        self._seen = seen
        self._rng = random.Random(7)
        self.statuses: dict[int, int] = {}
        self.asked = self.hits = self.most_users = self.most_bytes = 0
        self.slowest = 0.0

    async def run(self, forged: int) -> None:
        numbers = iter(range(forged))
        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(self._work, numbers)

    async def _work(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            status = (await ask(self._app, http_scope(user=f"forged{number}@example.net"))).status
            self.statuses[status] = self.statuses.get(status, 0) + 1
            self._seen(status)
            if number % REAL_EVERY == 0:
                await self._ask_for_somebody_real()

    async def _ask_for_somebody_real(self) -> None:
        began = time.perf_counter()
        resolution = await self._plugin.resolve(self._rng.choice(self._real))
        self.slowest = max(self.slowest, time.perf_counter() - began)
        assert resolution.context is not None
        self.asked += 1
        self.hits += resolution.origin == "memory"
        memory = self._cache.memory
        self.most_users, self.most_bytes = max(self.most_users, len(memory)), max(self.most_bytes, memory.bytes)

    @property
    def _cache(self) -> TieredCache[UserContext]:
        return self._plugin._assembly.cache


async def _measure(forged: int, url: str, policy: CachePolicy, seconds: float, held_until: int | None) -> Found:
    real = [f"real{number}@example.org" for number in range(policy.max_users)]
    source = Counted(real, seconds)
    async with ContextPlugin(
        source=source, identify=by_header, redis=url, redis_options=PATIENT, policy=policy
    ) as plugin:
        assert (await plugin.warm(real)).warmed == len(real)
        source.calls = source.real = source.most = 0
        if held_until is not None:
            source.held = anyio.Event()

        def seen(status: int) -> None:
            if status == held_until:
                source.held.set()

        flood, rss, began = _Flood(plugin, real, seen), _rss_mb(), time.perf_counter()
        await flood.run(forged)
        took = time.perf_counter() - began
    with redis.Redis.from_url(url) as client:
        ages = [client.pttl(key) for key in _some(client, b"ctx:g:*", 2_000)]
        return Found(
            forged,
            flood.statuses,
            flood.asked,
            flood.hits,
            flood.slowest * 1000,
            source,
            flood.most_users,
            flood.most_bytes,
            _rss_mb() - rss,
            client.dbsize(),
            client.info("memory")["used_memory"] / 1e6,
            sorted(ages)[len(ages) // 2] / 1000,
            took,
        )


def _some(client: redis.Redis, pattern: bytes, count: int) -> list[bytes]:
    found: list[bytes] = []
    for key in client.scan_iter(pattern, count=1000):
        found.append(key)
        if len(found) >= count:
            break
    return found


def measure(
    forged: int, *, policy: CachePolicy = POLICY, seconds: float = 0.002, held_until: int | None = None
) -> Found:
    """Flood an app, with memory full of real users and a real Redis, and return what was seen.

    Args:
        forged: how many identities nobody knows.
        policy: how much there is room for; there are as many real users as memory holds.
        seconds: how long a call of the source takes.
        held_until: a status before which no call of the source ends.
    """
    with Valkey.start() as server:
        return anyio.run(
            _measure, forged, server.url, policy, seconds, held_until, backend_options={"use_uvloop": True}
        )


def run(forged: int = FORGED) -> list[dict[str, object]]:
    """Return what a flood costs."""
    found = measure(forged)
    return [
        {
            "forged": found.forged,
            "answered": found.statuses,
            "hit rate of the real": f"{found.hits / found.real:.2%} of {found.real}",
            "slowest real": f"{found.slowest_ms:.0f} ms",
            "source calls": f"{found.source.calls}, {found.source.most} at a time",
            "in memory": f"{found.most_users} users, {found.most_bytes / 1e6:.1f} MB",
            "process": f"+{found.rss_mb:.0f} MB",
            "Redis": f"{found.redis_keys} keys, {found.redis_mb:.0f} MB, for {found.generation_s:.0f} s",
            "seconds": round(found.seconds, 1),
        }
    ]
