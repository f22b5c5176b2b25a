"""One plugin in several event loops: in two threads at once, one after the other, and one for each request."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PREAMBLE = """
    import asyncio, threading
    import anyio
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route
    from starlette.testclient import TestClient
    from ctxmiddleware import UserContextMiddleware, current_user_context, get_user_context
    from tests.asgi import ask, http_scope, no_lifespan
    from tests.people import ADA, BOB, OpenedSource, as_user, plugin_of

    async def me(request):
        await asyncio.sleep(0)
        assert current_user_context() is get_user_context(request)
        return JSONResponse(get_user_context(request).email)

    source = OpenedSource()
    plugin = plugin_of(source)
    app = Starlette(routes=[Route("/me", me)])
    app.add_middleware(UserContextMiddleware, plugin=plugin, required=True)
    failures = []

    def in_threads(*targets):
        def guarded(target):
            try:
                target()
            except BaseException as error:
                failures.append(error)
        threads = [threading.Thread(target=guarded, args=(target,)) for target in targets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
"""


def run(script: str) -> None:
    """Run a script in a process of its own where every warning is an error, and expect nothing on stderr."""
    ready = textwrap.dedent(PREAMBLE) + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ready],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("opened", ["lifespan", "lazily", "async with"])
@pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])
def test_two_loops_in_two_threads_share_one_plugin(opened: str, uvloop: bool) -> None:  # noqa: FBT001
    """Each loop opens and closes its own resources, memory is shared, and nothing is left to warn about."""
    run(f"""
    from asgi_lifespan import LifespanManager
    from contextlib import AsyncExitStack
    from httpx2 import ASGITransport, AsyncClient

    async def main():
        async with AsyncExitStack() as stack:
            inside = app
            if {opened!r} == "lifespan":
                inside = (await stack.enter_async_context(LifespanManager(app))).app
            elif {opened!r} == "async with":
                await stack.enter_async_context(plugin)
            client = await stack.enter_async_context(AsyncClient(transport=ASGITransport(inside)))
            async def get(user):
                answer = await client.get("http://test/me", headers=as_user(user))
                assert answer.json() == user, answer
            async with anyio.create_task_group() as tasks:
                for number in range(200):
                    tasks.start_soon(get, (ADA, BOB)[number % 2])
                    if number % 20 == 0:
                        tasks.start_soon(plugin.invalidate, ADA)

    def target():
        anyio.run(main, backend_options={{"use_uvloop": {uvloop}}})

    in_threads(target, target)
    assert source.events.count("open") == source.events.count("close") == 2, source.events
    assert plugin.stats().requests == {{"served": 400}}
    """)


def test_asyncio_and_trio_share_one_plugin() -> None:
    """Two kinds of loops in two threads are no different."""
    run("""
    async def main():
        outer = UserContextMiddleware(no_lifespan, plugin=plugin)
        for number in range(300):
            user = (ADA, BOB)[number % 2]
            if number % 50 == 0:
                await plugin.clear()
            assert (await ask(outer, http_scope(user=user))).json() == user

    in_threads(lambda: anyio.run(main), lambda: anyio.run(main, backend="trio"))
    assert source.events.count("open") == source.events.count("close") == 2, source.events
    """)


def test_a_test_client_without_with_opens_for_each_request() -> None:
    """`TestClient` without `with` runs no lifespan and a new loop for each request: what is opened is closed again."""
    run("""
    import logging

    # The request that is refused is reported.
    logging.getLogger("ctxmiddleware.refusals").setLevel(logging.ERROR)
    client = TestClient(app)
    for user in (ADA, BOB, ADA):
        assert client.get("/me", headers=as_user(user)).json() == user
        assert source.events.count("open") == source.events.count("close") > 0
    assert client.get("/me").status_code == 401
    assert [each.name for each in source.calls] == [ADA, BOB]
    with TestClient(app) as client:
        for user in (ADA, BOB, ADA):
            assert client.get("/me", headers=as_user(user)).json() == user
        assert source.is_open
    assert not source.is_open
    """)


def test_loops_one_after_the_other_are_served_and_freed() -> None:
    """Many short-lived loops neither fail nor pile up."""
    run("""
    import gc, weakref
    loops = []

    async def main():
        loops.append(weakref.ref(asyncio.get_running_loop()))
        outer = UserContextMiddleware(no_lifespan, plugin=plugin)
        assert (await ask(outer, http_scope(user=ADA))).json() == ADA
        await plugin.clear()

    for _ in range(20):
        asyncio.run(main())
    gc.collect()
    assert sum(loop() is not None for loop in loops) == 0
    assert source.events == ["open", "close"] * 20
    """)


def test_eager_tasks_are_no_different() -> None:
    """A loop that begins tasks at once, as Python 3.12 and newer can, opens and closes the plugin all the same."""
    run("""
    async def main():
        asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory", None))
        outer = UserContextMiddleware(no_lifespan, plugin=plugin)
        async with plugin:
            assert (await ask(outer, http_scope(user=ADA))).json() == ADA
        assert (await ask(outer, http_scope(user=BOB))).json() == BOB

    asyncio.run(main())
    assert source.events == ["open", "close"] * 2
    """)
