"""The synchronous form of `changing`: from which threads it may be used, and where it runs."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any, Final, Self

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import redis
import redis.asyncio
from asgiref.sync import sync_to_async
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from ctxmiddleware import ContextPlugin
from ctxmiddleware.cache.redis.keys import KeySpace
from examples.servers import Valkey
from tests.backends import asyncio_only
from tests.waiting import PATIENCE, eventually

from .rig import ADA, BOB, ROOT, Rows, finished, held_by, is_held, plugin_over, script, two_instances, value_of

pytestmark = [pytest.mark.anyio, pytest.mark.trio_branches]


@asyncio_only
async def test_the_synchronous_form_in_a_thread(own: Valkey) -> None:
    """As Django's and SQLAlchemy's synchronous sessions need it, while the application's event loop goes on."""
    async with two_instances(own.url) as (one, two, source):
        await value_of(one)

        def work() -> None:
            with one.changing(ADA):
                anyio.from_thread.run(value_of, two)
                source.rows[ADA] = "new"

        await anyio.to_thread.run_sync(work)
        assert [await value_of(each) for each in (one, two)] == ["new", "new"]
        one._blocking.stop()


def test_the_synchronous_form_without_an_event_loop(own: Valkey) -> None:
    """A thread of its own runs the loop, several threads share it, and it ends with the interpreter."""
    source = Rows()
    plugin = plugin_over(source, own.url)
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
    text = f"""
        from tests.changing.rig import ADA, Rows, plugin_over
        plugin = plugin_over(Rows(), {own.url!r})
        with plugin.changing(ADA):
            print("in the block")
    """
    done = finished(text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "in the block\n", "")
    with redis.Redis.from_url(own.url) as client:
        assert client.zcount(KeySpace("default", b"").channel().listeners, "(0", "+inf") == 0


async def test_the_synchronous_form_refuses_the_thread_of_an_event_loop() -> None:
    """It would stand still for as long."""
    plugin = plugin_over(Rows())
    with pytest.raises(RuntimeError, match="an event loop runs in this thread"), plugin.changing(ADA):
        pass
    with pytest.raises(RuntimeError, match="an event loop runs in this thread"):
        plugin.invalidate_sync(ADA)


class Pooled(Rows):
    """A source whose pool belongs to the event loop that opened it."""

    def __init__(self) -> None:
        super().__init__()
        self.loops: list[object] = []

    async def __aenter__(self) -> Self:
        self.loops.append(asyncio.get_running_loop())
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


@asyncio_only
async def test_no_source_is_opened_for_it(own: Valkey) -> None:
    """Entered again in another event loop, a source would lose the pool of the application's."""
    source = Pooled()
    async with plugin_over(source, own.url) as plugin:
        await value_of(plugin)
        await anyio.to_thread.run_sync(_work, plugin)
    await anyio.to_thread.run_sync(_work, plugin)
    plugin._blocking.stop()
    assert source.loops == [asyncio.get_running_loop()]


def _work(plugin: ContextPlugin[str]) -> None:
    with plugin.changing(ADA):
        plugin.invalidate_sync(BOB)


@asyncio_only
async def test_a_ready_client_is_used_in_the_event_loop_it_belongs_to(own: Valkey) -> None:
    """Where the plugin is open: its connections serve no other event loop."""
    async with redis.asyncio.Redis.from_url(own.url) as client, plugin_over(Rows(), client) as plugin:
        await value_of(plugin)
        await anyio.to_thread.run_sync(_work, plugin)
        assert await value_of(plugin) == "old"
        assert not [each for each in threading.enumerate() if each.name == "ctxmiddleware"]


async def _to_thread(work: Callable[[], None]) -> None:
    await asyncio.to_thread(work)


async def _to_anyio_thread(work: Callable[[], None]) -> None:
    await anyio.to_thread.run_sync(work)


async def _by_asgiref(work: Callable[[], None]) -> None:
    await sync_to_async(work)()


WAYS: Final = [_to_thread, _to_anyio_thread, _by_asgiref]


@asyncio_only
@pytest.mark.parametrize("way", WAYS)
async def test_every_way_into_a_thread_is_one(way: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
    """They copy context variables, of which one names the event loop's library: no loop runs there all the same."""
    async with plugin_over(Rows()) as plugin:
        await way(lambda: _work(plugin))
        assert held_by(plugin) == {}


async def test_a_thread_of_any_event_loop() -> None:
    """Also under trio, without an event loop of asyncio to run in."""
    async with plugin_over(Rows()) as plugin:
        await anyio.to_thread.run_sync(_work, plugin)
        plugin._blocking.stop()
        assert held_by(plugin) == {}


def test_a_synchronous_endpoint() -> None:
    """Starlette runs it in a thread, also under its TestClient."""
    plugin = plugin_over(Rows())

    def endpoint(_: Request) -> PlainTextResponse:
        _work(plugin)
        return PlainTextResponse("changed")

    app = Starlette(routes=[Route("/", endpoint, methods=["POST"])], lifespan=plugin.lifespan)
    with TestClient(app) as client:
        assert client.post("/").text == "changed"


def test_an_event_loop_that_stands_still_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event loop that waits for the very thread would wait for ever; the thread of its own does not."""
    monkeypatch.setattr("ctxmiddleware.blocking._BEGUN_WITHIN", 0.0)
    plugin = plugin_over(Rows())

    async def main() -> None:
        async with plugin:
            thread = threading.Thread(target=_work, args=(plugin,), daemon=True)
            thread.start()
            thread.join(PATIENCE)
            assert not thread.is_alive()

    anyio.run(main)
    plugin._blocking.stop()
    assert held_by(plugin) == {}


def test_a_signal_while_the_block_is_entered_leaves_no_hold(own: Valkey) -> None:
    """As KeyboardInterrupt, and as Celery's time limit: the handler raises where the thread waits."""
    text = f"""
        import signal
        from tests.changing.rig import ADA, Rows, held_by, plugin_over
        from tests.waiting import eventually

        class Limit(Exception): ...

        def limit(*_):
            raise Limit

        signal.signal(signal.SIGUSR1, limit)
        plugin = plugin_over(Rows(), {own.url!r})
        plugin.invalidate_sync(ADA)
        print("begun", flush=True)
        input()
        try:
            with plugin.changing(ADA):
                print("entered", flush=True)
        except Limit:
            print("interrupted", flush=True)
        eventually(lambda: not held_by(plugin))
        print("released", flush=True)
    """
    with (
        redis.Redis.from_url(own.url) as client,
        subprocess.Popen(script(text), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        client.execute_command("CLIENT", "PAUSE", int(1000 * PATIENCE), "WRITE")
        process.stdin.write("\n")
        process.stdin.flush()
        # Its hold waits, and not only the beat of its instance.
        eventually(lambda: _paused(client, b"evalsha"))
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "interrupted\n"
        client.execute_command("CLIENT", "UNPAUSE")
        assert process.stdout.readline() == "released\n"
        assert process.wait(PATIENCE) == 0
    eventually(lambda: not is_held(own))


def _paused(client: redis.Redis, command: bytes) -> bool:
    return any(each["cmd"].encode() == command and "b" in each["flags"] for each in client.client_list())


def test_a_thread_that_is_interrupted_at_any_line() -> None:
    """By a signal's handler that does the same, or by the collector that ends a block: no lock is entered twice."""
    plugin = plugin_over(Rows())
    lines = [0]

    def block() -> Iterator[None]:
        with plugin.changing(ADA):
            yield

    def begun() -> Iterator[None]:
        one = block()
        next(one)
        return one

    waiting: list[Any] = [begun() for _ in range(200)]
    plugin._blocking.stop()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.endswith("blocking.py"):
            return None
        if event == "line":
            lines[0] += 1
            sys.settrace(None)
            if waiting:
                waiting.pop().close()
            plugin.invalidate_sync(BOB)
            sys.settrace(trace)
        return trace

    def work() -> None:
        sys.settrace(trace)
        try:
            plugin.invalidate_sync(ADA)
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert lines[0] > 20
    waiting.clear()
    gc.collect()
    plugin._blocking.stop()


def test_a_plugin_that_is_gone_takes_its_thread_along(own: Valkey) -> None:
    """Its connections too: an application that makes plugins again and again does not grow."""

    def used() -> None:
        plugin = plugin_over(Rows(), own.url)
        _work(plugin)

    def threads() -> list[threading.Thread]:
        gc.collect()
        return [each for each in threading.enumerate() if each.name == "ctxmiddleware"]

    # Threads of other tests' plugins may not have ended yet.
    before = set(threads())
    for _ in range(3):
        used()
    eventually(lambda: before.issuperset(threads()))
    with redis.Redis.from_url(own.url) as client:
        eventually(lambda: not client.zcount(KeySpace("default", b"").channel().listeners, "(0", "+inf"))


async def test_a_thread_that_has_died_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resource that failed to open once may open later."""
    plugin = plugin_over(Rows())
    serving = plugin._holding.serving

    def failing() -> Any:
        raise OSError("not now")

    class Failing:
        async def __aenter__(self) -> None:
            failing()

        async def __aexit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(plugin._holding, "serving", Failing)
    with pytest.raises(OSError, match="not now"):
        await anyio.to_thread.run_sync(_work, plugin)
    monkeypatch.setattr(plugin._holding, "serving", serving)
    await anyio.to_thread.run_sync(_work, plugin)
    plugin._blocking.stop()
    assert held_by(plugin) == {}
