"""Redis hangs for a minute under three instances with thousands of active users: what the source and callers feel."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import anyio

from ctxmiddleware import CachePolicy, ContextPlugin, UserContext
from ctxmiddleware.sources.supabase import SupabaseSource
from examples.servers import Postgres, SupabaseFront, SupabaseProject, TcpProxy, Valkey, create_roles

from .storm import fill

POLICY = CachePolicy()
PER_SECOND = 600
INSTANCES = 3


@contextmanager
def _servers(users: int) -> Iterator[tuple[SupabaseFront, TcpProxy, list[str]]]:
    with Postgres.start(locale="C") as postgres, Valkey.start() as valkey:
        create_roles(postgres)
        with SupabaseProject.start(postgres, database="hung") as project:
            emails = fill(project, users)
            with project.front("16") as front, TcpProxy.start("127.0.0.1", valkey.port) as proxy:
                yield front, proxy, emails


class _Phase:
    """One stretch of time, and what was felt in it."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self.seconds = seconds
        self.took: list[float] = []
        self.failed = 0

    async def run(self, plugins: list[ContextPlugin[UserContext]], emails: list[str], rng: random.Random) -> None:
        """Ask for users at random, `PER_SECOND` in all."""
        began, asked = time.perf_counter(), 0
        async with anyio.create_task_group() as callers:
            while (now := time.perf_counter() - began) < self.seconds:
                while asked < now * PER_SECOND:
                    callers.start_soon(self._ask, rng.choice(plugins), rng.choice(emails))
                    asked += 1
                await anyio.sleep(0.005)

    async def _ask(self, plugin: ContextPlugin[UserContext], email: str) -> None:
        began = time.perf_counter()
        try:
            await plugin.resolve(email)
        except Exception:  # noqa: BLE001 - counted, whatever it is
            self.failed += 1
        self.took.append(1000 * (time.perf_counter() - began))

    def row(self, front: SupabaseFront) -> dict[str, object]:
        """Return what was felt, and let the front count anew."""
        counts = front.counts()
        front.reset()
        cuts = statistics.quantiles(self.took, n=100) if len(self.took) > 1 else [0.0] * 99
        return {
            "Redis": self.name,
            "resolves": len(self.took),
            "failed": self.failed,
            "source calls": counts.requests,
            "source calls/s": round(counts.requests / self.seconds, 1),
            "most at a time": counts.most_under_way,
            "p50 ms": round(cuts[49], 2),
            "p99 ms": round(cuts[98], 2),
        }


async def _measure(
    front: SupabaseFront, proxy: TcpProxy, emails: list[str], seconds: float, policy: CachePolicy
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    async with AsyncExitStack() as stack:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        plugins = [
            await stack.enter_async_context(
                ContextPlugin(source=SupabaseSource(front.url, front.secret_key), redis=url, policy=policy)
            )
            for _ in range(INSTANCES)
        ]
        for plugin in plugins:
            await plugin.warm(emails)
        front.reset()
        rng = random.Random(1)
        for name, length in (("well", seconds / 4), ("hung", seconds), ("well again", seconds / 4)):
            if name == "hung":
                proxy.black_hole()
            elif rows:
                proxy.pass_through()
                proxy.drop()
            phase = _Phase(name, length)
            await phase.run(plugins, emails, rng)
            rows.append(phase.row(front))
    return rows


def run(seconds: float = 60.0, users: int = 5000, policy: CachePolicy = POLICY) -> list[dict[str, object]]:
    """Return what was felt before, during and after."""
    with _servers(users) as (front, proxy, emails):
        return anyio.run(_measure, front, proxy, emails, seconds, policy)
