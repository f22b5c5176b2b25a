"""Whether nothing that is loaded while a `changing` block is open outlives it, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import redis

from ctxmiddleware import CachePolicy, ContextPlugin, Identity, InvalidationFailed
from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.cache.redis.options import RedisOptions
from ctxmiddleware.cache.shared import HELD_SECONDS
from ctxmiddleware.invalidation import MOST_USERS
from examples.servers import Valkey
from tests.backends import asyncio_only
from tests.waiting import eventually_async

pytestmark = pytest.mark.anyio

ADA, BOB = "ada@example.org", "bob@example.org"
POLICY = CachePolicy(settle=0, refresh_ahead=1, jitter=0)
QUICK = RedisOptions(timeout=0.5, invalidation_wait=0.5, confirm_timeout=0.05, probe_every=0.05)


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


@pytest.fixture
def own() -> Iterator[Valkey]:
    """A Valkey that this test may stop and kill."""
    with Valkey.start() as server:
        yield server


def _plugin(source: Rows, url: str | None = None, policy: CachePolicy = POLICY) -> ContextPlugin[str]:
    return ContextPlugin(source=source, redis=url, redis_options=QUICK, policy=policy, context_type=str)


@asynccontextmanager
async def _two(url: str) -> AsyncIterator[tuple[ContextPlugin[str], ContextPlugin[str], Rows]]:
    source = Rows()
    async with _plugin(source, url) as one, _plugin(source, url) as two:
        for each in (one, two):
            await eventually_async(partial(_is_heard, each))
        yield one, two, source


def _is_heard(plugin: ContextPlugin[str]) -> bool:
    seen = plugin.stats().redis
    return seen is not None and seen.channel == "heard"


async def _value(plugin: ContextPlugin[str], user: str = ADA) -> str | None:
    return (await plugin.resolve(user)).context


def _holds(server: Valkey, user: str = ADA) -> str:
    names = KeySpace("default", b"").of(Identity(user).cache_key)
    return names.holds


async def test_what_is_loaded_in_the_block_is_served_and_kept_by_nothing() -> None:
    """With the process' memory alone: each request of this user is a load, another user's are as ever."""
    source = Rows()
    async with _plugin(source) as plugin:
        assert await _value(plugin) == "old"
        async with plugin.changing(ADA):
            assert [await _value(plugin) for _ in range(3)] == ["old"] * 3
            assert [await _value(plugin, BOB) for _ in range(3)] == ["old"] * 3
            assert source.calls.count(ADA) == 4
            assert source.calls.count(BOB) == 1
            source.rows[ADA] = "new"
        assert [await _value(plugin) for _ in range(3)] == ["new"] * 3
        assert source.calls.count(ADA) == 5


@asyncio_only
async def test_no_instance_keeps_what_it_loads_in_the_block(own: Valkey) -> None:
    """A transaction of any length: the old row is loaded by all, and none has it after the end."""
    async with _two(own.url) as (one, two, source):
        assert [await _value(each) for each in (one, two)] == ["old", "old"]
        async with one.changing(ADA):
            for _ in range(2):
                assert [await _value(each) for each in (one, two)] == ["old", "old"]
            source.rows[ADA] = "new"
        assert [await _value(each) for each in (one, two)] == ["new", "new"]
        calls = len(source.calls)
        assert [await _value(each) for each in (one, two)] == ["new", "new"]
        assert len(source.calls) == calls


@asyncio_only
@pytest.mark.parametrize("end", ["exception", "cancellation"])
async def test_however_it_ends_the_user_is_invalidated(own: Valkey, end: str) -> None:
    """The transaction may have been committed before the block broke off."""
    async with _two(own.url) as (one, two, source):
        await _value(two)
        with anyio.CancelScope() as scope:
            try:
                async with one.changing(ADA):
                    await _value(two)
                    source.rows[ADA] = "new"
                    if end == "exception":
                        raise LookupError(end)
                    scope.cancel()
                    await anyio.sleep_forever()
            except LookupError:
                pass
        assert await _value(two) == "new"
        with redis.Redis.from_url(own.url) as client:
            assert not client.exists(_holds(own))


@asyncio_only
async def test_blocks_do_not_end_each_other(own: Valkey) -> None:
    """Nested or concurrent, of one instance or of two: what is loaded is kept once the last one has ended."""
    async with _two(own.url) as (one, two, source):
        async with one.changing(ADA):
            async with two.changing(ADA, BOB), one.changing(ADA):
                pass
            await _value(two)
            source.rows[ADA] = "new"
            assert await _value(two) == "new"
        calls = len(source.calls)
        await _value(two)
        await _value(two)
        assert len(source.calls) == calls + 1


@asyncio_only
async def test_the_end_of_a_holder_that_died(own: Valkey) -> None:
    """Killed between COMMIT and the end of its block, a process leaves nothing old, and a mark that ends by itself."""
    script = f"""
        import asyncio, sys
        from ctxmiddleware import ContextPlugin
        from tests.test_changing import ADA, POLICY, Rows

        async def main():
            async with ContextPlugin(source=Rows(), redis={own.url!r}, policy=POLICY, context_type=str) as plugin:
                async with plugin.changing(ADA):
                    print("open", flush=True)
                    await asyncio.sleep(600)

        asyncio.run(main())
    """
    async with _two(own.url) as (one, _, source):
        assert await _value(one) == "old"
        root = Path(__file__).parents[1]
        holder = await anyio.open_process([sys.executable, "-c", textwrap.dedent(script)], cwd=root, stderr=None)
        assert holder.stdout is not None
        assert (await holder.stdout.receive()).startswith(b"open")
        assert await _value(one) == "old"
        holder.send_signal(signal.SIGKILL)
        await holder.wait()
        source.rows[ADA] = "new"
        assert await _value(one) == "new"
        calls = len(source.calls)
        await _value(one)
        assert len(source.calls) == calls + 1
        with redis.Redis.from_url(own.url) as client:
            assert 0 < client.pttl(_holds(own)) <= 1000 * HELD_SECONDS
            client.pexpire(_holds(own), 1)
            await eventually_async(lambda: not client.exists(_holds(own)))
        await _value(one)
        calls = len(source.calls)
        assert await _value(one) == "new"
        assert len(source.calls) == calls


@asyncio_only
async def test_a_hold_that_redis_has_lost_is_set_again_and_its_user_invalidated(own: Valkey) -> None:
    """What another instance has kept meanwhile may be of before the COMMIT."""
    async with _two(own.url) as (one, two, source):
        one._holding._every = 0.05
        async with one.changing(ADA):
            with redis.Redis.from_url(own.url) as client:
                client.delete(_holds(own))
                await _value(two)
                await eventually_async(lambda: client.exists(_holds(own)))
            source.rows[ADA] = "new"
            await eventually_async(lambda: two.peek(Identity(ADA)) is None)
            assert await _value(two) == "new"
            assert two.peek(Identity(ADA)) is None


@asyncio_only
async def test_redis_out_of_reach_at_the_begin_raises_before_the_body(own: Valkey) -> None:
    """Nothing is held then, by this process neither."""
    source = Rows()
    async with _plugin(source, own.url) as plugin:
        await _value(plugin)
        own.kill()
        with pytest.raises(InvalidationFailed):
            async with plugin.changing(ADA):
                pytest.fail("the body ran")
        assert plugin._assembly.cache.settling._held == {}


@asyncio_only
@pytest.mark.parametrize("fails", [True, False])
async def test_redis_out_of_reach_at_the_end(own: Valkey, fails: bool) -> None:  # noqa: FBT001
    """The body's own exception wins, with the failure attached; else the failure is raised."""
    source = Rows()
    async with _plugin(source, own.url) as plugin:

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
        assert plugin._assembly.cache.settling._held == {}


async def test_a_block_that_the_collector_ends_is_ended_by_the_plugin() -> None:
    """A generator that is dropped in its block can await nothing: the plugin's own task invalidates its users."""
    source = Rows()
    async with _plugin(source) as plugin:
        plugin._holding._every = 0.01

        async def block() -> AsyncGenerator[None]:
            async with plugin.changing(ADA):
                yield

        generator = block()
        await anext(generator)
        await _value(plugin)
        source.rows[ADA] = "new"
        with pytest.raises(GeneratorExit):
            await generator.athrow(GeneratorExit)
        await eventually_async(lambda: plugin._assembly.cache.settling._held == {})
        assert await _value(plugin) == "new"
        assert plugin.peek(Identity(ADA)) is not None


async def test_too_many_users_or_none_are_refused() -> None:
    """A block is for the users of one transaction."""
    plugin = _plugin(Rows())
    with pytest.raises(ValueError, match="1001 users are more than 1000"):
        plugin.changing(*(f"user{number}@example.org" for number in range(MOST_USERS + 1)))
    with pytest.raises(ValueError, match="no user was given"):
        plugin.changing()


async def test_a_block_is_opened_once() -> None:
    """Used twice it would end with the first."""
    async with _plugin(Rows()) as plugin:
        block = plugin.changing(ADA)
        async with block:
            with pytest.raises(RuntimeError, match="is open already"):
                await block.__aenter__()


@asyncio_only
async def test_the_synchronous_form_in_a_thread(own: Valkey) -> None:
    """As Django's and SQLAlchemy's synchronous sessions need it, while the application's event loop goes on."""
    async with _two(own.url) as (one, two, source):
        await _value(one)

        def work() -> None:
            with one.changing(ADA):
                anyio.from_thread.run(_value, two)
                source.rows[ADA] = "new"

        await anyio.to_thread.run_sync(work)
        assert [await _value(each) for each in (one, two)] == ["new", "new"]
        one._blocking.stop()


def test_the_synchronous_form_without_an_event_loop(own: Valkey) -> None:
    """A thread of its own runs the loop, several threads share it, and it ends with the interpreter."""
    source = Rows()
    plugin = _plugin(source, own.url)
    failures: list[BaseException] = []

    def work(user: str) -> None:
        try:
            with plugin.changing(user):
                plugin.invalidate_sync([user, BOB])
        except Exception as error:  # noqa: BLE001 - the test shows it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"user{number}@example.org",)) for number in range(5)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failures == []
    assert plugin.invalidate_sync(ADA).redis == "done"
    plugin._blocking.stop()
    with redis.Redis.from_url(own.url) as client:
        assert client.zcount(KeySpace("default", b"").channel().listeners, "(0", "+inf") == 0


def test_the_interpreter_ends_with_a_thread_that_was_begun(own: Valkey) -> None:
    """Without a call, a warning or a wait; the instance has left the list."""
    script = f"""
        from ctxmiddleware import ContextPlugin
        from tests.test_changing import ADA, Rows
        plugin = ContextPlugin(source=Rows(), redis={own.url!r}, context_type=str)
        with plugin.changing(ADA):
            print("in the block")
    """
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        cwd=root, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "in the block\n", "")
    with redis.Redis.from_url(own.url) as client:
        assert client.zcount(KeySpace("default", b"").channel().listeners, "(0", "+inf") == 0


async def test_the_synchronous_form_refuses_the_thread_of_an_event_loop() -> None:
    """It would stand still for as long."""
    plugin = _plugin(Rows())
    with pytest.raises(RuntimeError, match="an event loop runs in this thread"), plugin.changing(ADA):
        pass
    with pytest.raises(RuntimeError, match="an event loop runs in this thread"):
        plugin.invalidate_sync(ADA)


@asyncio_only
async def test_many_users_at_once(own: Valkey) -> None:
    """One report of all; more than a thousand become a clear only if that is asked for."""
    async with _two(own.url) as (one, two, source):
        for user in (ADA, BOB):
            for each in (one, two):
                await _value(each, user)
            source.rows[user] = "new"
        report = await one.invalidate([ADA, Identity(BOB), ADA.upper(), "nobody@example.org"])
        assert (report.memory, report.redis, report.was_known, len(report.confirmed)) == (2, "done", True, 2)
        assert [await _value(two, user) for user in (ADA, BOB)] == ["new", "new"]
        many = [f"user{number}@example.org" for number in range(MOST_USERS + 1)]
        with pytest.raises(ValueError, match="or_clear=True"):
            await one.invalidate(many)
        assert (await one.invalidate(many, or_clear=True)).was_known is None
        with pytest.raises(ValueError, match="no user was given"):
            await one.invalidate([])


@asyncio_only
async def test_many_users_of_whom_redis_is_not_told(own: Valkey) -> None:
    """The failure has the report of all of them."""
    async with _plugin(Rows(), own.url) as plugin:
        for user in (ADA, BOB):
            await _value(plugin, user)
        own.kill()
        with pytest.raises(InvalidationFailed) as raised:
            await plugin.invalidate([ADA, BOB])
        report: Any = raised.value.report
        assert (report.memory, report.redis, report.others_stop_within) == (2, "failed", None)
