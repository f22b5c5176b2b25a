"""Whether nothing that is loaded while a `changing` block is open outlives it, however it ends."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator

import anyio
import pytest
import redis

from ctxmiddleware import Identity, InvalidationFailed
from ctxmiddleware.cache.shared import HELD_SECONDS
from ctxmiddleware.invalidation import MOST_USERS
from examples.servers import Valkey
from tests.backends import asyncio_only
from tests.waiting import eventually_async

from .rig import ADA, BOB, ROOT, Rows, held_by, holds_key, plugin_over, script, two_instances, value_of

pytestmark = pytest.mark.anyio


async def test_what_is_loaded_in_the_block_is_served_and_kept_by_nothing() -> None:
    """With the process' memory alone: each request of this user is a load, another user's are as ever."""
    source = Rows()
    async with plugin_over(source) as plugin:
        assert await value_of(plugin) == "old"
        async with plugin.changing(ADA):
            assert [await value_of(plugin) for _ in range(3)] == ["old"] * 3
            assert [await value_of(plugin, BOB) for _ in range(3)] == ["old"] * 3
            assert source.calls.count(ADA) == 4
            assert source.calls.count(BOB) == 1
            source.rows[ADA] = "new"
        assert [await value_of(plugin) for _ in range(3)] == ["new"] * 3
        assert source.calls.count(ADA) == 5


@asyncio_only
async def test_no_instance_keeps_what_it_loads_in_the_block(own: Valkey) -> None:
    """A transaction of any length: the old row is loaded by all, and none has it after the end."""
    async with two_instances(own.url) as (one, two, source):
        assert [await value_of(each) for each in (one, two)] == ["old", "old"]
        async with one.changing(ADA):
            for _ in range(2):
                assert [await value_of(each) for each in (one, two)] == ["old", "old"]
            source.rows[ADA] = "new"
        assert [await value_of(each) for each in (one, two)] == ["new", "new"]
        calls = len(source.calls)
        assert [await value_of(each) for each in (one, two)] == ["new", "new"]
        assert len(source.calls) == calls


@asyncio_only
@pytest.mark.parametrize("end", ["exception", "cancellation"])
async def test_however_it_ends_the_user_is_invalidated(own: Valkey, end: str) -> None:
    """The transaction may have been committed before the block broke off."""
    async with two_instances(own.url) as (one, two, source):
        await value_of(two)
        with anyio.CancelScope() as scope:
            try:
                async with one.changing(ADA):
                    await value_of(two)
                    source.rows[ADA] = "new"
                    if end == "exception":
                        raise LookupError(end)
                    scope.cancel()
                    await anyio.sleep_forever()
            except LookupError:
                pass
        assert await value_of(two) == "new"
        with redis.Redis.from_url(own.url) as client:
            assert not client.exists(holds_key())


@asyncio_only
async def test_blocks_do_not_end_each_other(own: Valkey) -> None:
    """Nested or concurrent, of one instance or of two: what is loaded is kept once the last one has ended."""
    async with two_instances(own.url) as (one, two, source):
        async with one.changing(ADA):
            async with two.changing(ADA, BOB), one.changing(ADA):
                pass
            await value_of(two)
            source.rows[ADA] = "new"
            assert await value_of(two) == "new"
        calls = len(source.calls)
        await value_of(two)
        await value_of(two)
        assert len(source.calls) == calls + 1


@asyncio_only
async def test_the_end_of_a_holder_that_died(own: Valkey) -> None:
    """Killed between COMMIT and the end of its block, a process leaves nothing old, and a mark that ends by itself."""
    text = f"""
        import asyncio
        from tests.changing.rig import ADA, Rows, plugin_over

        async def main():
            async with plugin_over(Rows(), {own.url!r}) as plugin:
                async with plugin.changing(ADA):
                    print("open", flush=True)
                    await asyncio.sleep(600)

        asyncio.run(main())
    """
    async with two_instances(own.url) as (one, _, source):
        assert await value_of(one) == "old"
        holder = await anyio.open_process(script(text), cwd=ROOT, stderr=None)
        assert holder.stdout is not None
        assert (await holder.stdout.receive()).startswith(b"open")
        assert await value_of(one) == "old"
        holder.send_signal(signal.SIGKILL)
        await holder.wait()
        source.rows[ADA] = "new"
        assert await value_of(one) == "new"
        calls = len(source.calls)
        await value_of(one)
        assert len(source.calls) == calls + 1
        with redis.Redis.from_url(own.url) as client:
            assert 0 < client.pttl(holds_key()) <= 1000 * HELD_SECONDS
            client.pexpire(holds_key(), 1)
            await eventually_async(lambda: not client.exists(holds_key()))
        await value_of(one)
        calls = len(source.calls)
        assert await value_of(one) == "new"
        assert len(source.calls) == calls


@asyncio_only
async def test_a_hold_that_redis_has_lost_is_set_again_and_its_user_invalidated(own: Valkey) -> None:
    """Another instance may have kept a value from before the COMMIT."""
    async with two_instances(own.url) as (one, two, source):
        one._holding._every = 0.05
        async with one.changing(ADA):
            with redis.Redis.from_url(own.url) as client:
                client.delete(holds_key())
                await value_of(two)
                await eventually_async(lambda: client.exists(holds_key()))
            source.rows[ADA] = "new"
            await eventually_async(lambda: two.peek(Identity(ADA)) is None)
            assert await value_of(two) == "new"
            assert two.peek(Identity(ADA)) is None


@asyncio_only
async def test_redis_out_of_reach_at_the_begin_raises_before_the_body(own: Valkey) -> None:
    """Nothing is held then, by this process neither."""
    source = Rows()
    async with plugin_over(source, own.url) as plugin:
        await value_of(plugin)
        own.kill()
        with pytest.raises(InvalidationFailed):
            async with plugin.changing(ADA):
                pytest.fail("the body ran")
        assert held_by(plugin) == {}


@asyncio_only
@pytest.mark.parametrize("fails", [True, False])
async def test_redis_out_of_reach_at_the_end(own: Valkey, *, fails: bool) -> None:
    """The body's own exception wins, with the failure attached; else the failure is raised."""
    source = Rows()
    async with plugin_over(source, own.url) as plugin:

        async def change() -> None:
            async with plugin.changing(ADA):
                own.kill()
                if fails:
                    raise LookupError("the body's")

        with pytest.raises(LookupError if fails else InvalidationFailed) as raised:
            await change()
        if fails:
            assert isinstance(raised.value.__context__, InvalidationFailed)
            assert "plugin.changing()" in raised.value.__notes__[0]
        assert held_by(plugin) == {}


async def test_a_block_that_the_collector_ends_is_ended_by_the_plugin() -> None:
    """A generator that is dropped in its block can await nothing: the plugin's own task invalidates its users."""
    source = Rows()
    async with plugin_over(source) as plugin:
        plugin._holding._every = 0.01

        async def block() -> AsyncGenerator[None]:
            async with plugin.changing(ADA):
                yield

        generator = block()
        await anext(generator)
        await value_of(plugin)
        source.rows[ADA] = "new"
        with pytest.raises(GeneratorExit):
            await generator.athrow(GeneratorExit)
        await eventually_async(lambda: held_by(plugin) == {})
        assert await value_of(plugin) == "new"
        assert plugin.peek(Identity(ADA)) is not None


async def test_too_many_users_or_none_are_refused() -> None:
    """A block is for the users of one transaction."""
    plugin = plugin_over(Rows())
    with pytest.raises(ValueError, match="1001 users are more than 1000"):
        plugin.changing(*(f"user{number}@example.org" for number in range(MOST_USERS + 1)))
    with pytest.raises(ValueError, match="no user was given"):
        plugin.changing()


async def test_a_block_is_opened_once() -> None:
    """Used twice it would end with the first."""
    async with plugin_over(Rows()) as plugin:
        block = plugin.changing(ADA)
        async with block:
            with pytest.raises(RuntimeError, match="is open already"):
                await block.__aenter__()
