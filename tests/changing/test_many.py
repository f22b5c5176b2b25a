"""Many users invalidated at once, and what is reported of them together."""

from __future__ import annotations

from typing import Any

import pytest

from ctxmiddleware import Identity, InvalidationFailed
from ctxmiddleware.invalidation import MOST_USERS
from examples.servers import Valkey
from tests.backends import asyncio_only

from .rig import ADA, BOB, Rows, plugin_over, two_instances, value_of

pytestmark = pytest.mark.anyio


@asyncio_only
async def test_many_users_at_once(own: Valkey) -> None:
    """One report of all; more than a thousand become a clear only if that is asked for."""
    async with two_instances(own.url) as (one, two, source):
        for user in (ADA, BOB):
            for each in (one, two):
                await value_of(each, user)
            source.rows[user] = "new"
        report = await one.invalidate([ADA, Identity(BOB), ADA.upper(), "nobody@example.org"])
        assert (report.memory, report.redis, report.was_known, len(report.confirmed)) == (2, "done", True, 2)
        assert [await value_of(two, user) for user in (ADA, BOB)] == ["new", "new"]
        many = [f"user{number}@example.org" for number in range(MOST_USERS + 1)]
        with pytest.raises(ValueError, match="or_clear=True"):
            await one.invalidate(many)
        assert (await one.invalidate(many, or_clear=True)).was_known is None
        with pytest.raises(ValueError, match="no user was given"):
            await one.invalidate([])


@asyncio_only
async def test_many_users_of_whom_redis_is_not_told(own: Valkey) -> None:
    """The failure has the report of all of them."""
    async with plugin_over(Rows(), own.url) as plugin:
        for user in (ADA, BOB):
            await value_of(plugin, user)
        own.kill()
        with pytest.raises(InvalidationFailed) as raised:
            await plugin.invalidate([ADA, BOB])
        report: Any = raised.value.report
        assert (report.memory, report.redis, report.others_stop_within) == (2, "failed", None)
