"""Whether the list of commands a user of Redis needs is the list."""

from __future__ import annotations

import pytest
import redis

from ctxmiddleware.cache.base import Stored
from tests.backends import asyncio_only
from tests.cache.rig import ADA, look_one, redis_tier, store_one

from . import shapes

pytestmark = [pytest.mark.anyio, asyncio_only]
KEEP_MS = 60_000


async def test_everything_that_is_allowed_is_used_and_nothing_else_is_asked_for() -> None:
    """A user with fewer rights would not do, and one with these is refused nothing: there is no entry in the log."""
    allowed = {word.removeprefix("+").replace("|", "_") for word in shapes.acl_command() if word.startswith("+")}
    with shapes.by_user() as shape:
        direct = shape.owner("")
        direct.config_resetstat()
        tier = redis_tier(f"{shape.target}".replace("/0", "/1"))
        async with tier.opened:
            for _ in range(2):
                found = await look_one(tier, ADA, KEEP_MS)
                assert found is not None
                assert await store_one(tier, ADA, found.fence, Stored("value", "db", 50.0), 10 * KEEP_MS)
                await tier.invalidate(None, KEEP_MS)
        assert direct.acl_log() == []
        used = {name.removeprefix("cmdstat_").replace("|", "_") for name in direct.info("commandstats")}
    assert allowed <= used


async def test_others_keys_are_out_of_reach() -> None:
    """The user sees the library's keys and no others."""
    with shapes.by_user() as shape, redis.Redis.from_url(f"{shape.target}") as client:
        assert client.get("ctx:{default:00}:n") is None
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.get("session:1")
