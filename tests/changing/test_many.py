"""Many users invalidated at once, and what is reported of them together."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ctxmiddleware import Identity, InvalidationFailed
from ctxmiddleware.invalidation import MOST_USERS, _merged
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
async def test_many_users_fail_where_redis_is_down(own: Valkey) -> None:
    """The failure has the report of all of them."""
    async with plugin_over(Rows(), own.url) as plugin:
        for user in (ADA, BOB):
            await value_of(plugin, user)
        own.kill()
        with pytest.raises(InvalidationFailed) as raised:
            await plugin.invalidate([ADA, BOB])
        report: Any = raised.value.report
        assert (report.memory, report.redis, report.others_stop_within) == (2, "failed", None)
        pseudonyms = [plugin.pseudonyms.of(Identity(user)) for user in (ADA, BOB)]
        assert "2 of 2 users" in str(raised.value)
        assert all(each in str(raised.value) for each in pseudonyms)
        assert ADA not in str(raised.value)


async def test_not_every_one_of_many_failed_users_is_named() -> None:
    """A message of a thousand names would be read by none."""
    text = plugin_over(Rows())._invalidator._which([f"user{number}@example.org" for number in range(1000)], 1000)
    assert text.startswith("1000 of 1000 users, ")
    assert text.endswith(", ...")
    assert len(text) < 300


@pytest.mark.parametrize("users", [[ADA], [ADA, BOB]])
async def test_another_error_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch, users: list[str]) -> None:
    """In no group, and after the others were forgotten."""
    async with plugin_over(Rows()) as plugin:
        for user in (ADA, BOB):
            await value_of(plugin, user)
        forget = plugin._assembly.cache.invalidate

        async def invalidate(name: str | None) -> object:
            if name == Identity(ADA).cache_key[1]:
                raise LookupError("a fault of ours")
            return await forget(name)

        monkeypatch.setattr(plugin._assembly.cache, "invalidate", invalidate)
        with pytest.raises(LookupError, match="a fault of ours"):
            async with plugin.changing(*users):
                pytest.fail("the body ran")
        assert (plugin.peek(Identity(BOB)) is None) is (BOB in users)


async def test_an_instance_may_be_missing_for_all_where_it_may_be_for_one() -> None:
    """A bound of 0 s says more than none: another server took over while the second user was invalidated."""
    async with plugin_over(Rows()) as plugin:
        sure = await plugin.invalidate(ADA)
    unsure = msgspec.structs.replace(sure, unlisted_stop_within=0.0, unlisted_because="the list is new")
    for reports in ([sure, unsure], [unsure, sure]):
        merged = _merged(reports, 1.0)
        assert (merged.unlisted_stop_within, merged.unlisted_because) == (0.0, "the list is new")
