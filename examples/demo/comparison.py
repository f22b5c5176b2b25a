"""How the two apps are compared: the same traffic in interleaved rounds, counted at the servers."""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from ctxmiddleware import Employee

from .load import Ask, Limits, Run, drive
from .rig import Rig
from .screen import Screen
from .served import App
from .tokens import signed

ROUNDS = 3
_WARM_UP = 8


class Measured(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the table.

    Args:
        requests: how many the app answered.
        db_calls: requests that reached Supabase's front for them.
        warehouse_calls: queries that reached the warehouse for them.
        p50_ms: half of the requests took no longer, in milliseconds.
        p99_ms: all but one in a hundred took no longer, in milliseconds.
        rps: requests in a second.
        hit_rate: share of contexts that the cache had; None without a cache.
    """

    requests: int
    db_calls: int
    warehouse_calls: int
    p50_ms: float
    p99_ms: float
    rps: float
    hit_rate: float | None = None


@dataclass(frozen=True)
class Pair:
    """Both lines of one comparison.

    Args:
        before: without the middleware.
        after: with it.
        ratios: how many times lower p50 was, round by round.
    """

    before: Measured
    after: Measured
    ratios: tuple[float, ...]


class Traffic:
    """Who asks: people who are online at the same time, some of them much more often than others.

    Args:
        online: these people; their popularity falls as 1, 1/2, 1/3 and so on (Zipf).
        secret: what the apps verify tokens with.
        seed: which of the possible sequences.
    """

    def __init__(self, online: Sequence[Employee], secret: str, seed: int) -> None:
        self._asks = [Ask.me(person.email, signed(person.email, secret)) for person in online]
        self._weights = list(itertools.accumulate(1 / rank for rank in range(1, len(online) + 1)))
        self._seed = seed

    def sequence(self) -> Iterator[Ask]:
        """Return the requests, the same ones in each call, without an end."""
        chance = random.Random(self._seed)  # noqa: S311 - traffic, no secrets
        while True:
            yield from chance.choices(self._asks, cum_weights=self._weights, k=1000)


@dataclass
class Side:
    """One app in one comparison.

    Args:
        name: as the screen calls it.
        app: it, served.
        asks: its traffic.
    """

    name: str
    app: App
    asks: Iterator[Ask]
    runs: list[Run] = field(default_factory=list)
    db_calls: int = 0
    warehouse_calls: int = 0

    def measured(self, hit_rate: float | None = None) -> Measured:
        """Return the sum of its rounds."""
        latencies = [latency for run in self.runs for latency in run.latencies]
        return Measured(
            requests=len(latencies),
            db_calls=self.db_calls,
            warehouse_calls=self.warehouse_calls,
            p50_ms=round(1000 * quantile(latencies, 0.5), 3),
            p99_ms=round(1000 * quantile(latencies, 0.99), 3),
            rps=round(len(latencies) / sum(run.seconds for run in self.runs), 1),
            hit_rate=hit_rate,
        )


@dataclass(frozen=True)
class Comparison:
    """Drives two apps with the same traffic.

    Args:
        rig: where calls are counted.
        screen: where progress is shown.
        traffic: who asks.
        warm_up: whose requests are sent first and not measured; somebody who is not in the traffic.
        limits: of one app in one comparison, all rounds together.
    """

    rig: Rig
    screen: Screen
    traffic: Traffic
    warm_up: Ask
    limits: Limits

    def pair(self, label: str, before: App, after: App, *, preloaded: int = 0) -> Pair:
        """Compare them, round by round, beginning with an empty cache.

        Args:
            label: put before the rounds on the screen.
            before: the app without the middleware.
            after: the app with it.
            preloaded: queries that reached the warehouse when `after` started.

        Raises:
            LoadFailed: an answer was wrong or did not come.
        """
        after.clear()
        sides = (
            Side("without", before, self.traffic.sequence()),
            Side("with", after, self.traffic.sequence(), warehouse_calls=preloaded),
        )
        for side in sides:
            limits = Limits(_WARM_UP, self.limits.seconds, min(_WARM_UP, self.limits.concurrency))
            asyncio.run(drive(side.app.port, itertools.repeat(self.warm_up), limits, lambda done, answers: None))
        known = after.stats()["resolutions"]
        for number in range(1, ROUNDS + 1):
            for side in sides:
                self._round(side, f"{label}{side.name}, round {number} of {ROUNDS}")
        hit_rate = _hit_rate(known, after.stats()["resolutions"])
        return Pair(sides[0].measured(), sides[1].measured(hit_rate), _ratios(*sides))

    def _round(self, side: Side, title: str) -> None:
        limits = Limits(max(1, self.limits.requests // ROUNDS), self.limits.seconds / ROUNDS, self.limits.concurrency)
        calls, queries = self.rig.database_calls(), self.rig.warehouse_calls()
        with self.screen.step(title) as step:
            run = asyncio.run(
                drive(
                    side.app.port,
                    side.asks,
                    limits,
                    lambda done, answers: step.progress(f"{done:.0%}, {answers:,} answers"),
                )
            )
            step.detail = f"{len(run.latencies):,} requests, p50 {1000 * quantile(run.latencies, 0.5):,.1f} ms"
        side.runs.append(run)
        side.db_calls += self.rig.database_calls() - calls
        side.warehouse_calls += self.rig.warehouse_calls() - queries


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest of the values that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _ratios(before: Side, after: Side) -> tuple[float, ...]:
    return tuple(
        statistics.median(slow.latencies) / statistics.median(fast.latencies)
        for slow, fast in zip(before.runs, after.runs, strict=True)
    )


def _hit_rate(earlier: dict[str, int], later: dict[str, int]) -> float:
    """Return the share of answers out of memory or Redis among those given between the two counts."""
    given = {origin: count - earlier.get(origin, 0) for origin, count in later.items()}
    return round((given.get("memory", 0) + given.get("redis", 0)) / max(1, sum(given.values())), 4)
