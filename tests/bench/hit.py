"""What one hit costs, as a ratio to a plain dict's look-up in the same interleaved rounds."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable

from cachetools import TTLCache
from cashews import Cache

from ctxmiddleware import ContextPlugin
from ctxmiddleware.principal import Identity
from ctxmiddleware.testing import StaticSource

CALLS = 20_000
ROUNDS = 9


async def _measure() -> dict[str, float]:
    email = "ada@example.org"
    plugin = ContextPlugin(source=StaticSource({email: "context"}), context_type=str)
    identity = Identity(email)
    await plugin.resolve(identity)
    plain, timed, cashews = {identity.cache_key: "context"}, TTLCache(1000, 900.0), Cache()  # type: ignore[var-annotated]
    timed[identity.cache_key] = "context"
    cashews.setup("mem://")
    await cashews.set("ada", "context", expire=900)

    def sync(call: Callable[[], object]) -> float:
        began = time.perf_counter()
        for _ in range(CALLS):
            call()
        return time.perf_counter() - began

    async def awaited() -> float:
        began = time.perf_counter()
        for _ in range(CALLS):
            await cashews.get("ada")
        return time.perf_counter() - began

    rounds: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, call in (
            ("dict.get", lambda: plain.get(identity.cache_key)),
            ("ctxmiddleware peek", lambda: plugin.peek(identity)),
            ("cachetools TTLCache.get", lambda: timed.get(identity.cache_key)),
        ):
            rounds.setdefault(name, []).append(sync(call))
        rounds.setdefault("cashews get", []).append(await awaited())
    return {name: statistics.median(times) / CALLS * 1e9 for name, times in rounds.items()}


def run() -> list[dict[str, object]]:
    """Return each one's nanoseconds, and how many times a dict's they are."""
    found = asyncio.run(_measure())
    return [
        {"one hit": name, "ns": round(took), "times a dict's": round(took / found["dict.get"], 1)}
        for name, took in found.items()
    ]
