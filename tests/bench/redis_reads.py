"""How many looks a second Redis answers, gathered and by one pooled command each: `python -m tests.bench.redis_reads`.

Rounds of both take turns, so that whatever else the machine does befalls both. About 25 seconds; starts its own Valkey.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

import anyio
import uvloop

from ctxmiddleware.cache.base import Fence, Key, Stored
from ctxmiddleware.cache.redis.codec import Codec
from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.cache.redis.lua.values import LOOK
from ctxmiddleware.cache.redis.options import RedisOptions
from ctxmiddleware.cache.redis.order import answer_of
from ctxmiddleware.cache.redis.servers.driver import Call
from ctxmiddleware.cache.redis.tier import RedisTier
from ctxmiddleware.cache.shared import Storing
from ctxmiddleware.stats import REDIS, Counters
from examples.servers import Valkey

TASKS = (1, 4, 16, 64, 256)
ROUNDS = 9
SECONDS = 0.25
KEEP_MS = 1_260_000
USERS: list[Key] = [("", f"user{number}@example.org") for number in range(2000)]
VALUE = "x" * 750  # about what a context takes as a msgpack array

Look = Callable[[Key], Awaitable[object]]


async def _fill(tier: RedisTier[str]) -> None:
    found = await tier.look(USERS, KEEP_MS)
    fences = [Fence(b"", b"") if look is None else look.fence for look in found]
    stored = Stored(VALUE, "bench", 900.0)
    values = [Storing(key, fence, stored, KEEP_MS) for key, fence in zip(USERS, fences, strict=True)]
    if set(await tier.store(values)) != {True}:
        raise SystemExit("Redis did not keep what is to be read")


def _gathered(tier: RedisTier[str]) -> Look:
    async def look(key: Key) -> object:
        (found,) = await tier.look([key], KEEP_MS)
        return found and found.stored

    return look


def _pooled(tier: RedisTier[str]) -> Look:
    session, keys = tier.opened.current, KeySpace("bench", tier.codec.shape)

    async def look(key: Key) -> object:
        token, redis_keys = secrets.token_bytes(16), keys.of(key)
        if not await session.take_place(5):
            raise SystemExit("no connection was free for 5 seconds")
        try:
            with anyio.fail_after(10):
                (reply,) = await session.pool.run([Call(LOOK, redis_keys[:6], (token, KEEP_MS))])
        finally:
            session.places.release()
        ((everyone, name, data, left_ms, *_),) = answer_of(LOOK, token, reply)
        return data and tier.codec.unpack(data, key, Fence(everyone, name), left_ms, redis_key=redis_keys.value)

    return look


async def _rate(look: Look, tasks: int) -> float:
    """Let so many tasks look one user up after the other, and return how many looks a second that made."""
    started = time.perf_counter()
    end = started + SECONDS

    async def ask(number: int) -> int:
        done = 0
        while time.perf_counter() < end:
            if not await look(USERS[(number * 7919 + done) % len(USERS)]):
                raise SystemExit("a look found nothing: what was measured is not a look")
            done += 1
        return done

    done = sum(await asyncio.gather(*(ask(number) for number in range(tasks))))
    return done / (time.perf_counter() - started)


async def _measure(url: str) -> None:
    counters = Counters()
    tier = RedisTier(
        url, codec=Codec(str), namespace="bench", counters=counters, options=RedisOptions(pool_wait=5, timeout=5)
    )
    async with tier.opened:
        await _fill(tier)
        gathered, pooled = _gathered(tier), _pooled(tier)
        print(f"{'tasks':>6} {'gathered/s':>12} {'pooled/s':>12} {'ratio':>7}")
        for tasks in TASKS:
            rates = [(await _rate(gathered, tasks), await _rate(pooled, tasks)) for _ in range(ROUNDS)]
            ours, theirs = (statistics.median(side) for side in zip(*rates, strict=True))
            ratio = statistics.median(one / other for one, other in rates)
            print(f"{tasks:>6} {ours:>12,.0f} {theirs:>12,.0f} {ratio:>6.1f}x")
    print(f"faults {counters.get('fault', REDIS)}, busy {counters.get('busy', REDIS)}")


def main() -> None:
    """Measure, on asyncio or, with --uvloop, on uvloop."""
    with Valkey.start() as server:
        run = uvloop.run if "--uvloop" in sys.argv[1:] else asyncio.run
        run(_measure(server.url))


if __name__ == "__main__":
    main()
