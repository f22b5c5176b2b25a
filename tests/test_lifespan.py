"""What becomes of the plugin in an app's lifespan, whatever the app and the host do with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from ctxmiddleware import UserContextMiddleware
from ctxmiddleware.lifespan import LifespanRun

from .asgi import Host, ask, http_scope, no_lifespan
from .lifespans import (
    RAISES,
    RETURNS,
    App,
    wrapped,
)
from .people import ADA, OpenedSource, plugin_of

pytestmark = [pytest.mark.anyio, pytest.mark.every_loop]


async def test_the_plugin_is_open_while_the_app_lives() -> None:
    """The plugin opens before the app starts, and closes after the app stopped and before the host hears of it."""
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        events.append("app starts")
        yield
        events.append("app stops")

    host = Host(wrapped(Starlette(lifespan=lifespan), OpenedSource(events)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        assert await host.start() == "startup.complete"
        assert events == ["open", "app starts"]
        assert await host.stop() == "shutdown.complete"
        assert events == ["open", "app starts", "app stops", "close"]
    assert host.error is None


@pytest.mark.parametrize("app", [*RAISES, *RETURNS])
async def test_an_app_without_a_lifespan_is_answered_for(app: App) -> None:
    """Whatever an app without a lifespan does, the host gets both answers and the plugin is opened and closed once."""
    source = OpenedSource()
    host = Host(wrapped(app, source))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        assert await host.start() == "startup.complete"
        await anyio.wait_all_tasks_blocked()
        assert source.events == ["open"]
        assert not host.ended
        assert await host.stop() == "shutdown.complete"
        assert source.events == ["open", "close"]
    assert host.error is None
    assert host.kinds == ["startup.complete", "shutdown.complete"]


@pytest.mark.parametrize("app", RETURNS)
async def test_an_app_that_only_returns_is_not_logged(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """An app that returns quietly has done nothing worth a warning."""
    host = Host(wrapped(app, OpenedSource()))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        await host.start()
        await host.stop()
    assert caplog.records == []


async def test_the_plugin_serves_again_after_its_lifespan() -> None:
    """A request that comes after the shut-down opens the plugin again instead of failing."""
    source = OpenedSource()
    app = wrapped(no_lifespan, source)
    host = Host(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        await host.start()
        await host.stop()
    assert (await ask(app, http_scope(user=ADA))).json() == ADA
    assert source.events == ["open", "close", "open"]


async def test_the_app_gets_the_hosts_own_lifespan_scope() -> None:
    """State that the app puts on the lifespan's scope is where the host looks for it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["mine"] = 1

    host = Host(wrapped(app, OpenedSource()))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        await host.start()
        await host.stop()
    assert host.scope["state"] == {"mine": 1}


async def test_the_same_plugin_twice_is_opened_once() -> None:
    """Two middlewares with one plugin open and close it together."""
    source = OpenedSource()
    plugin = plugin_of(source)
    host = Host(UserContextMiddleware(UserContextMiddleware(Starlette(), plugin=plugin), plugin=plugin))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        assert await host.start() == "startup.complete"
        assert await host.stop() == "shutdown.complete"
    assert host.error is None
    assert source.events == ["open", "close"]


async def test_a_lifespan_opens_what_it_is_given() -> None:
    """The lifespan needs nothing of the middleware: any context manager is opened and closed by it."""
    events: list[str] = []
    host = Host(lambda scope, receive, send: LifespanRun(Starlette(), OpenedSource(events), receive, send).run(scope))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        await host.start()
        await host.stop()
    assert events == ["open", "close"]
