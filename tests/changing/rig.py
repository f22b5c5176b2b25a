"""A source whose rows a test changes, plugins over it, and their holds."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis

from ctxmiddleware import CachePolicy, ContextPlugin, Identity
from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.cache.redis.options import RedisOptions
from examples.servers import Valkey
from tests.measured import measured
from tests.waiting import PATIENCE, eventually_async

ADA, BOB = "ada@example.org", "bob@example.org"
POLICY = CachePolicy(settle=0, refresh_ahead=1, jitter=0)
# Longer than a busy machine takes for anything.
PATIENT: Final = RedisOptions(
    timeout=PATIENCE, pool_wait=PATIENCE, invalidation_wait=PATIENCE, confirm_timeout=PATIENCE, probe_every=0.05
)
ROOT: Final = Path(__file__).parents[2]


class Rows:
    """A source whose rows a test changes."""

    label = "rows"

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}
        self.calls: list[str] = []

    async def fetch(self, identity: Identity) -> str:
        """Return the row as it is now."""
        self.calls.append(identity.name)
        return self.rows.get(identity.name, "old")


def plugin_over(source: Rows, target: Any = None, policy: CachePolicy = POLICY) -> ContextPlugin[str]:
    """Return a plugin that keeps only what nothing forbids."""
    return ContextPlugin(source=source, redis=target, redis_options=PATIENT, policy=policy, context_type=str)


@asynccontextmanager
async def two_instances(url: str) -> AsyncIterator[tuple[ContextPlugin[str], ContextPlugin[str], Rows]]:
    """Open two plugins that receive each other's invalidations."""
    source = Rows()
    async with plugin_over(source, url) as one, plugin_over(source, url) as two:
        for each in (one, two):
            await eventually_async(partial(_is_heard, each))
        yield one, two, source


def _is_heard(plugin: ContextPlugin[str]) -> bool:
    seen = plugin.stats().redis
    return seen is not None and seen.channel == "heard"


async def value_of(plugin: ContextPlugin[str], user: str = ADA) -> str | None:
    """Return what a plugin serves a user."""
    return (await plugin.resolve(user)).context


def held_by(plugin: ContextPlugin[str]) -> dict[bytes, int]:
    """Return what a process holds."""
    return plugin._assembly.cache.settling._held


def holds_key(user: str = ADA) -> str:
    """Return the key of a user's holds in Redis."""
    return KeySpace("default", b"").of(Identity(user).cache_key).holds


def generation_key(user: str = ADA) -> str:
    """Return the key of a user's generation in Redis, which each invalidation replaces."""
    return KeySpace("default", b"").of(Identity(user).cache_key).generation


def is_held(server: Valkey, user: str = ADA) -> bool:
    """Return whether a user is held in Redis."""
    with redis.Redis.from_url(server.url) as client:
        return bool(client.exists(holds_key(user)))


def script(text: str) -> list[str]:
    """Return the command of a Python process that fails with its first warning."""
    return [sys.executable, "-W", "error", "-c", measured(textwrap.dedent(text))]


def finished(text: str) -> subprocess.CompletedProcess[str]:
    """Run a Python process to its end."""
    return subprocess.run(script(text), cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
