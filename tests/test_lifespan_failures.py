"""What becomes of a lifespan in which the plugin, the app or the host fails."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Router
from starlette.types import Message, Receive, Scope, Send

from ctxmiddleware import ConfigurationError, UserContextMiddleware
from ctxmiddleware.failure_log import reason_of
from ctxmiddleware.lifespan import LifespanRun

from .asgi import Host
from .lifespans import (
    RAISES,
    App,
    completes_unasked_then_returns,
    raises_at_once,
    returns_at_once,
    wrapped,
)
from .people import NeverOpens, OpenedSource, plugin_of

pytestmark = [pytest.mark.anyio, pytest.mark.every_loop]


@pytest.mark.parametrize("app", RAISES)
async def test_an_exception_taken_as_no_lifespan_is_logged(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """The error of an app without a lifespan ends the one log line, and its traceback is logged at DEBUG."""
    caplog.set_level(logging.DEBUG, "ctxmiddleware.lifespan")
    host = Host(wrapped(app, OpenedSource()))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        await host.start()
        await host.stop()
    record, trace = [record for record in caplog.records if record.name == "ctxmiddleware.lifespan"]
    assert (record.levelno, record.exc_info, trace.levelno) == (logging.WARNING, None, logging.DEBUG)
    assert trace.exc_info is not None
    assert trace.exc_info[2] is not None
    assert record.message.endswith(reason_of(trace.exc_info[1]))


async def test_a_start_up_that_fails_in_the_app_is_the_apps() -> None:
    """An app that fails to start is not answered over, its error reaches the host, and the plugin is closed."""
    source = OpenedSource()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if source.is_open:
            raise RuntimeError("the app cannot start")
        yield

    host = Host(wrapped(Starlette(lifespan=lifespan), source))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        assert await host.start() == "startup.failed"
        await host.end()
    assert host.kinds == ["startup.failed"]
    assert "the app cannot start" in host.sent[0]["message"]
    assert isinstance(host.error, RuntimeError)
    assert source.events == ["open", "close"]


class Broken:
    """A middleware that raises on every scope, or once it has taken the request to start."""

    def __init__(self, app: App, *, receives: bool) -> None:
        self.app = app
        self.receives = receives

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.receives:
            await receive()
        raise RuntimeError("a broken middleware")


@pytest.mark.parametrize("receives", [False, True], ids=["at once", "after it was asked"])
@pytest.mark.parametrize("kind", [Starlette, Router])
async def test_what_breaks_inside_a_starlette_app_is_not_taken_for_no_lifespan(
    kind: type[Starlette | Router], *, receives: bool
) -> None:
    """A Starlette app and a router have a lifespan: what is raised there reaches the host, and nothing stays open."""
    source = OpenedSource()
    host = Host(wrapped(kind(middleware=[Middleware(Broken, receives=receives)]), source))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        assert await host.start() == "ended"
    assert host.kinds == []
    assert str(host.error) == "a broken middleware"
    assert source.events == (["open", "close"] if receives else [])


async def test_an_app_that_says_it_failed_and_returns_is_believed() -> None:
    """`startup.failed` without an exception is passed on once, after the plugin was closed."""
    source = OpenedSource()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})
        assert source.events == ["open", "close"]

    host = Host(wrapped(app, source))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        assert await host.start() == "startup.failed"
        await host.end()
    assert host.kinds == ["startup.failed"]
    assert host.error is None


async def test_a_start_up_that_fails_in_the_plugin_stops_the_app_before_it_starts() -> None:
    """The host is told and the error raised, with its own cause; the app never sees the request to start."""
    seen: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())

    host = Host(wrapped(app, NeverOpens()))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        assert await host.start() == "startup.failed"
        await host.end()
    assert host.sent == [{"type": "lifespan.startup.failed", "message": "OSError: no route to the source"}]
    assert isinstance(host.error, OSError)
    assert isinstance(host.error.__cause__, ValueError)
    assert seen == []


@pytest.mark.parametrize("app", [raises_at_once, returns_at_once])
async def test_a_plugin_that_fails_in_an_app_without_a_lifespan_fails_too(app: App) -> None:
    """Answering for an app does not hide that the plugin could not be opened."""
    host = Host(wrapped(app, NeverOpens()))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        assert await host.start() == "startup.failed"
        await host.end()
    assert host.kinds == ["startup.failed"]
    assert isinstance(host.error, OSError)


async def test_what_a_host_raises_when_it_is_told_of_a_failure_reaches_the_host() -> None:
    """A host that ends by its own exception, raised from `send`, gets that one back and not another."""

    class Ends(Exception):
        pass

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def raising(message: Message) -> None:
            await send(message)
            raise Ends

        await wrapped(Starlette(), NeverOpens())(scope, receive, raising)

    host = Host(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        assert await host.start() == "startup.failed"
        await host.end()
    assert host.kinds == ["startup.failed"]
    assert isinstance(host.error, Ends)


async def swallows(scope: Scope, receive: Receive, send: Send) -> None:
    """Take every exception for nothing and say that all is well."""
    try:
        await receive()
    except Exception:  # noqa: BLE001 - what some apps do
        await send({"type": "lifespan.startup.complete"})


async def fails_in_its_own_words(scope: Scope, receive: Receive, send: Send) -> None:
    """Turn the exception into another one and answer a second time."""
    try:
        await receive()
    except Exception as error:
        await send({"type": "lifespan.startup.failed", "message": "mine"})
        raise KeyError("mine") from error


async def receives_in_a_group(scope: Scope, receive: Receive, send: Send) -> None:
    """Receive in a task group, which wraps what is raised."""

    async def take() -> None:
        await receive()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)


@pytest.mark.parametrize("app", [swallows, fails_in_its_own_words, receives_in_a_group])
async def test_a_failure_of_the_plugin_is_told_once_whatever_the_app_makes_of_it(app: App) -> None:
    """The host gets one answer and the plugin's own error, even from an app that swallows or wraps it."""
    host = Host(wrapped(app, NeverOpens()))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        assert await host.start() == "startup.failed"
        await host.end()
    assert host.kinds == ["startup.failed"]
    assert isinstance(host.error, OSError)


async def test_a_failure_after_the_app_has_answered_is_raised_and_not_answered_again() -> None:
    """Two answers to one request would break the host, so a late failure is only raised."""
    host = Host(wrapped(completes_unasked_then_returns, NeverOpens()))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        await host.start()
        await host.end()
    assert host.kinds == ["startup.complete"]
    assert isinstance(host.error, OSError)


async def test_an_app_that_fails_while_it_stops_leaves_nothing_open() -> None:
    """The app's error at shut-down reaches the host, and the plugin is closed before `shutdown.failed` is."""
    source = OpenedSource()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "stuck"})
        assert source.events == ["open", "close"]
        raise RuntimeError("stuck")

    host = Host(wrapped(app, source))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        await host.start()
        assert await host.stop() == "shutdown.failed"
    assert isinstance(host.error, RuntimeError)
    assert host.kinds == ["startup.complete", "shutdown.failed"]


@pytest.mark.parametrize("waits", [True, False], ids=["at shut-down", "while it serves"])
async def test_an_app_that_raises_after_its_start_closes_the_plugin(waits: bool) -> None:  # noqa: FBT001 - a parameter
    """An app whose lifespan dies without an answer is not answered for, and the plugin is closed."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        if waits:
            await receive()
        raise RuntimeError("dead")

    source = OpenedSource()
    host = Host(wrapped(app, source))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        await host.start()
        if waits:
            assert await host.stop() == "ended"
    assert host.kinds == ["startup.complete"]
    assert isinstance(host.error, RuntimeError)
    assert source.events == ["open", "close"]


@pytest.mark.parametrize("app", [returns_at_once, Starlette()], ids=["without lifespan", "with lifespan"])
async def test_a_host_that_cancels_the_lifespan_gets_everything_closed(app: App) -> None:
    """A cancelled lifespan closes what it opened before it ends."""
    source = OpenedSource()
    host = Host(wrapped(app, source))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        await host.start()
        tasks.cancel_scope.cancel()
    assert source.events == ["open", "close"]


@pytest.mark.parametrize("app", [Starlette(), returns_at_once], ids=["with lifespan", "without lifespan"])
async def test_a_failure_of_an_outer_one_is_not_taken_for_an_app_without_a_lifespan(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    """With two plugins in one stack, the inner middleware ends where the outer one could not start."""
    inner = OpenedSource()
    host = Host(UserContextMiddleware(wrapped(app, inner), plugin=plugin_of(NeverOpens(), name="outer")))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        assert await host.start() == "startup.failed"
        await host.end()
    assert host.kinds == ["startup.failed"]
    assert isinstance(host.error, OSError)
    assert inner.events == []
    assert [record for record in caplog.records if record.name == "ctxmiddleware.lifespan"] == []


@pytest.mark.parametrize("app", [Starlette(), returns_at_once], ids=["with lifespan", "without lifespan"])
async def test_a_failure_of_an_inner_one_closes_the_outer_one(app: App) -> None:
    """With two plugins in one stack, the outer middleware closes what it opened where the inner one could not start."""
    outer = OpenedSource()
    host = Host(UserContextMiddleware(wrapped(app, NeverOpens()), plugin=plugin_of(outer, name="outer")))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        assert await host.start() == "startup.failed"
        await host.end()
    assert host.kinds == ["startup.failed"]
    assert isinstance(host.error, OSError)
    assert outer.events == ["open", "close"]


async def test_a_broken_environment_fails_the_start_and_names_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A middleware that reads a bad environment keeps the fault until the host can be told."""
    monkeypatch.setenv("CTX_TTL", "soon")
    monkeypatch.delenv("SUPABASE_URL", raising=False)
    host = Host(UserContextMiddleware(Starlette()))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        assert await host.start() == "startup.failed"
    assert isinstance(host.error, ConfigurationError)
    assert "CTX_TTL" in host.sent[0]["message"]


async def test_whatever_is_opened_is_closed_to_its_end_though_the_host_cancels() -> None:
    """A closing that takes its time is not cut short by the cancellation that brought it about."""
    events: list[str] = []

    class Slow(OpenedSource):
        async def __aexit__(self, *exc: object) -> None:
            await anyio.lowlevel.checkpoint()
            await super().__aexit__(*exc)

    host = Host(lambda scope, receive, send: LifespanRun(Starlette(), Slow(events), receive, send).run(scope))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        await host.start()
        tasks.cancel_scope.cancel()
    assert events == ["open", "close"]
