"""Who is kept when there is no room: hit rates on the shapes requests have, beside the best that could be had."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final

from cachetools import LFUCache, LRUCache
from theine import Cache as Theine

from ctxmiddleware.cache.base import Entry
from ctxmiddleware.cache.memory import MemoryTier

USERS: Final = 10_000
PLACES: Final = 1_000

Policy = Callable[[int], bool]
"""Asked for a user: whether they were there; if not, they are afterwards."""


def ours(places: int) -> Policy:
    """The memory tier as it stands, S3-FIFO."""
    tier: MemoryTier[str] = MemoryTier(places, 1 << 40)

    def ask(user: int) -> bool:
        key = ("", str(user))
        if tier.get(key) is not None:
            return True
        tier.put(key, Entry("context", "db", 0.0, 900.0, 900.0, 0.0, size=1), 0.0)
        return False

    return ask


def _mapping(kept: LRUCache[int, bool] | LFUCache[int, bool]) -> Policy:
    def ask(user: int) -> bool:
        if kept.get(user):
            return True
        kept[user] = True
        return False

    return ask


def tiny_lfu(places: int) -> Policy:
    """W-TinyLFU, as theine has it."""
    kept: Theine[int, str] = Theine(places)

    def ask(user: int) -> bool:
        if kept.get(user)[1]:
            return True
        kept.set(user, "context", timedelta(hours=1))
        return False

    return ask


def clock(places: int) -> Policy:
    """One queue, whose visited keys go round once more."""
    kept: OrderedDict[int, bool] = OrderedDict()

    def ask(user: int) -> bool:
        if user in kept:
            kept[user] = True
            return True
        while len(kept) >= places:
            oldest, visited = kept.popitem(last=False)
            if visited:
                kept[oldest] = False
        kept[user] = False
        return False

    return ask


def sieve(places: int) -> Policy:
    """One queue, where a hand passes over visited keys and leaves them in their place (Zhang et al., NSDI 2024)."""
    queue: list[int] = []
    visited: dict[int, bool] = {}
    hand = 0

    def ask(user: int) -> bool:
        nonlocal hand
        if user in visited:
            visited[user] = True
            return True
        if len(queue) >= places:
            hand %= len(queue)
            while visited[queue[hand]]:
                visited[queue[hand]] = False
                hand = (hand + 1) % len(queue)
            del visited[queue.pop(hand)]
        queue.append(user)
        visited[user] = False
        return False

    return ask


POLICIES: Final[dict[str, Callable[[int], Policy]]] = {
    "ctxmiddleware": ours,
    "LRU (cachetools)": lambda places: _mapping(LRUCache(places)),
    "LFU (cachetools)": lambda places: _mapping(LFUCache(places)),
    "W-TinyLFU (theine)": tiny_lfu,
    "CLOCK": clock,
    "SIEVE": sieve,
}


Trace = Callable[[random.Random, int], list[int]]
"""Makes a number of requests: the users who are asked for, one after the other."""


def best_possible(trace: list[int], places: int) -> int:
    """Return the hits of one who knows the future and lets go whom nobody asks for longest (Belady, 1966)."""
    coming: dict[int, int] = {}
    following = [len(trace)] * len(trace)
    for place in range(len(trace) - 1, -1, -1):
        following[place] = coming.get(trace[place], len(trace))
        coming[trace[place]] = place
    kept: dict[int, int] = {}
    furthest: list[tuple[int, int]] = []
    hits = 0
    for place, user in enumerate(trace):
        hits += user in kept
        while user not in kept and len(kept) >= places:
            when, other = heapq.heappop(furthest)
            if kept.get(other) == -when:
                del kept[other]
        kept[user] = following[place]
        heapq.heappush(furthest, (-following[place], user))
    return hits


def _popular(rng: random.Random, requests: int, *, skew: float = 0.9) -> list[int]:
    weights = list(itertools.accumulate(1 / rank**skew for rank in range(1, USERS + 1)))
    return rng.choices(range(USERS), cum_weights=weights, k=requests)


def _shifting(every: int) -> Trace:
    def trace(rng: random.Random, requests: int) -> list[int]:
        return [(rank + 50 * (place // every)) % USERS for place, rank in enumerate(_popular(rng, requests))]

    return trace


def _scanned(rng: random.Random, requests: int) -> list[int]:
    trace, sweep = _popular(rng, requests), itertools.count(USERS)
    for start in range(0, requests - 5_000, 20_000):
        trace[start : start + 5_000] = itertools.islice(sweep, 5_000)
    return trace


def _sessions(rng: random.Random, requests: int) -> list[int]:
    present = rng.sample(range(USERS), 2 * PLACES)
    newcomers = itertools.count(USERS)
    trace = []
    for _ in range(requests):
        seat = rng.randrange(len(present))
        if rng.random() < 0.05:
            present[seat] = next(newcomers)
        trace.append(present[seat])
    return trace


def _loop(rng: random.Random, requests: int) -> list[int]:
    return list(itertools.islice(itertools.cycle(range(PLACES * 3 // 2)), requests))


def _even(rng: random.Random, requests: int) -> list[int]:
    return [rng.randrange(USERS) for _ in range(requests)]


def _flooded(rng: random.Random, requests: int) -> list[int]:
    once = itertools.count(USERS)
    return [user if rng.random() < 0.5 else next(once) for user in _popular(rng, requests)]


TRACES: Final[dict[str, Trace]] = {
    "a few ask for most (Zipf 0.9)": _popular,
    "and others are popular by and by": _shifting(every=2000),
    "and others are popular very soon": _shifting(every=200),
    "and a job walks through everybody now and then": _scanned,
    "and half of all ask once only": _flooded,
    "sessions that come and go": _sessions,
    "everybody in turn, more than there is room for": _loop,
    "everybody alike": _even,
}


def measure(requests: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield, for each trace, the share of hits of each policy in percent, and what nobody can surpass."""
    for name, make in TRACES.items():
        trace = make(random.Random(1), requests)
        rates = {}
        for policy, build in POLICIES.items():
            ask = build(PLACES)
            rates[policy] = 100 * sum(ask(user) for user in trace) / requests
        yield name, rates | {"best possible": 100 * best_possible(trace, PLACES) / requests}


def run(requests: int = 200_000) -> list[dict[str, object]]:
    """Return a row for each trace."""
    return [
        {"hits in %": name, **{policy: f"{rate:.1f}" for policy, rate in rates.items()}}
        for name, rates in measure(requests)
    ]
