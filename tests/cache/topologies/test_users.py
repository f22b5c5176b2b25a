"""Whether the list of commands a user of Redis needs is the list."""

from __future__ import annotations

from functools import partial

import pytest
import redis

from tests.backends import asyncio_only
from tests.cache.rig import ADA, instance
from tests.waiting import eventually_async

from . import shapes
from .traffic import is_heard

pytestmark = [pytest.mark.anyio, asyncio_only]


async def test_everything_that_is_allowed_is_used_and_nothing_else_is_asked_for() -> None:
    """A user with fewer rights would not do, and one with these is refused nothing: there is no entry in the log."""
    allowed = {word.removeprefix("+").replace("|", "_") for word in shapes.acl_command() if word.startswith("+")}
    with shapes.by_user() as shape:
        direct = shape.owner("")
        direct.config_resetstat()
        url = f"{shape.target}".replace("/0", "/1")
        async with instance(url=url) as one, instance(url=url) as other:
            for each in (one, other):
                await eventually_async(partial(is_heard, each))
            for _ in range(2):
                await one.get()
                await one.get()
                assert one.cache.warming is not None
                await one.cache.warming.remember()
                await one.cache.warming.recall()
                _, reach = await other.cache.invalidate(None)
                assert len(reach.confirmed) == 1
            await other.cache.hold([ADA[1]], b"holder")
            await other.cache.invalidate(ADA[1])
            await other.cache.let_go([ADA[1]], b"holder")
        assert direct.acl_log() == []
        used = {name.removeprefix("cmdstat_").replace("|", "_") for name in direct.info("commandstats")}
    assert allowed <= used


async def test_others_keys_are_out_of_reach() -> None:
    """The user sees the library's keys and no others."""
    with shapes.by_user() as shape, redis.Redis.from_url(f"{shape.target}") as client:
        assert client.get("ctx:{default:00}:n") is None
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.get("session:1")
