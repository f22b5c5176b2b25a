"""Contexts in the place of identified users: for the requests of users' own tests, and for no other request."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import anyio
import httpx2
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import Scope
from starlette.websockets import WebSocket

from ctxmiddleware import ContextPlugin, UserContext, current_user_context, get_user_context, role_in
from ctxmiddleware.testing import StaticSource, override_user_context

from .people import ADA, BOB, GONE, as_user, by_header, context_of, plugin_of

Override = Callable[[UserContext | None], AbstractContextManager[None]]


async def me(request: Request) -> Response:
    """Return the user, read through each accessor."""
    context = get_user_context(request)
    assert context is current_user_context() is request.state.user_context
    return JSONResponse(context.email)


async def live(websocket: WebSocket) -> None:
    """Send the user."""
    await websocket.accept()
    await websocket.send_json(get_user_context(websocket).email)
    await websocket.close()


def app_of(plugin: ContextPlugin[UserContext]) -> Starlette:
    """Return an app that requires a context."""
    app = Starlette(routes=[Route("/me", me), Route("/health", me), WebSocketRoute("/live", live)])
    plugin.install(app, required=True, exclude=["/health"])
    return app


def identify(scope: Scope) -> None:
    """Fail: no user is to be identified."""
    raise AssertionError("identified")


@pytest.fixture
def plugin() -> ContextPlugin[UserContext]:
    """A plugin that identifies users by a header."""
    return plugin_of()


WAYS: dict[str, Callable[[ContextPlugin[UserContext]], Override]] = {
    "plugin.override": lambda plugin: plugin.override,
    "override_user_context": lambda plugin: override_user_context,
}


@pytest.fixture(params=WAYS)
def override(request: pytest.FixtureRequest, plugin: ContextPlugin[UserContext]) -> Override:
    """One of the two ways."""
    return WAYS[request.param](plugin)


def status(client: TestClient, path: str = "/me", user: str | None = None) -> int:
    """Return the status of an answer."""
    return client.get(path, headers=as_user(user)).status_code


@pytest.mark.parametrize("opened", [True, False], ids=["lifespan", "no lifespan"])
def test_requests_of_a_test_client_have_the_context(
    plugin: ContextPlugin[UserContext],
    override: Override,
    *,
    opened: bool,
) -> None:
    """Also over a websocket, and with the client opened before, in or without the block; not before and after it."""
    client = TestClient(app_of(plugin))
    if opened:
        client.__enter__()
    try:
        assert status(client) == 401
        with override(context_of(ADA)):
            assert client.get("/me").json() == ADA
            with client.websocket_connect("/live") as websocket:
                assert websocket.receive_json() == ADA
            with override(context_of(BOB)):
                assert client.get("/me").json() == BOB
            assert client.get("/me").json() == ADA
        assert status(client) == 401
        with pytest.raises(WebSocketDenialResponse), client.websocket_connect("/live"):
            raise AssertionError("accepted")
    finally:
        if opened:
            client.__exit__(None, None, None)


def test_a_client_opened_in_the_block_has_no_context_after_it(
    plugin: ContextPlugin[UserContext], override: Override
) -> None:
    """Its event loop was started with the block's context variables."""
    with override(context_of(ADA)):
        client = TestClient(app_of(plugin)).__enter__()
        assert status(client) == 200
    assert status(client) == 401
    client.__exit__(None, None, None)


def transport(plugin: ContextPlugin[UserContext]) -> httpx2.AsyncClient:
    """Return a client whose app runs in the event loop of the test."""
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app_of(plugin)), base_url="http://app")


@pytest.mark.anyio
async def test_requests_of_an_asgi_transport_have_the_context(
    plugin: ContextPlugin[UserContext], override: Override
) -> None:
    """In the block and in tasks started there, but not in those that outlive it."""
    is_over, statuses = anyio.Event(), []

    async def outlives(client: httpx2.AsyncClient) -> None:
        statuses.append((await client.get("/me")).status_code)
        await is_over.wait()
        statuses.append((await client.get("/me")).status_code)

    async with transport(plugin) as client, anyio.create_task_group() as tasks:
        with override(context_of(ADA)):
            assert (await client.get("/me")).json() == ADA
            tasks.start_soon(outlives, client)
            await anyio.wait_all_tasks_blocked()
        assert statuses == [200]
        is_over.set()
    assert statuses == [200, 401]


@pytest.mark.anyio
async def test_requests_outside_the_block_have_no_context_meanwhile(
    plugin: ContextPlugin[UserContext], override: Override
) -> None:
    """Tasks that were started before the block, and other threads, ask at the same time."""
    is_open, statuses = anyio.Event(), []

    async def other_task(client: httpx2.AsyncClient) -> None:
        await is_open.wait()
        statuses.append((await client.get("/me")).status_code)
        statuses.append((await client.get("/me", headers=as_user(BOB))).json())

    async with transport(plugin) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other_task, client)
            await anyio.wait_all_tasks_blocked()
            with override(context_of(ADA)):
                is_open.set()
                thread = threading.Thread(target=lambda: statuses.append(status(TestClient(app_of(plugin)))))
                thread.start()
                assert (await client.get("/me")).json() == ADA
                await anyio.to_thread.run_sync(thread.join)
                while len(statuses) < 3:
                    await anyio.lowlevel.checkpoint()
        assert sorted(map(str, statuses)) == ["401", "401", BOB]


@pytest.fixture
def as_ada(plugin: ContextPlugin[UserContext]) -> Iterator[None]:
    """A block that a user's own fixture has opened, before the event loop of an async test runs the test."""
    with plugin.override(context_of(ADA)):
        yield


@pytest.mark.anyio
async def test_a_block_of_a_sync_fixture_holds_for_an_async_test(
    plugin: ContextPlugin[UserContext], as_ada: None
) -> None:
    """Its task has the context variables from when its runner was started."""
    async with transport(plugin) as client:
        assert (await client.get("/me")).json() == ADA


def test_a_block_outside_of_any_loop_holds_for_the_loops_run_in_it(plugin: ContextPlugin[UserContext]) -> None:
    """For any context variables of their tasks."""

    async def ask() -> int:
        async with transport(plugin) as client:
            return (await client.get("/me")).status_code

    bare = contextvars.Context()
    with plugin.override(context_of(ADA)):
        assert bare.run(anyio.run, ask) == 200
    assert bare.run(anyio.run, ask) == 401


def test_a_block_may_be_left_in_another_context_than_it_was_entered_in(
    plugin: ContextPlugin[UserContext], override: Override
) -> None:
    """As async fixtures are; it has ended in both."""
    block, entered = override(context_of(ADA)), contextvars.copy_context()
    client = TestClient(app_of(plugin))
    entered.run(block.__enter__)
    assert entered.run(status, client) == 200
    block.__exit__(None, None, None)
    assert (entered.run(status, client), status(client)) == (401, 401)


def test_no_user_is_identified_and_no_source_called() -> None:
    """A context given by a test needs neither a token nor a database."""
    source = StaticSource[UserContext]({})
    plugin = plugin_of(source, identify=identify)
    with plugin.override(context_of(ADA)):
        assert status(TestClient(app_of(plugin))) == 200
    assert (source.calls, source.batches) == ([], [])


def test_an_override_replaces_the_identified_user(plugin: ContextPlugin[UserContext], override: Override) -> None:
    """And everything else applies: inactive users, anonymous requests, excluded paths, guards of the admin."""
    client = TestClient(app_of(plugin))
    with override(context_of(ADA)):
        assert client.get("/me", headers=as_user(BOB)).json() == ADA
        assert status(client, "/health") == 401
    with override(context_of(GONE, is_active=False)):
        assert client.get("/me").json()["reason"] == "inactive"
    with override(None):
        assert client.get("/me", headers=as_user(BOB)).json()["reason"] == "anonymous"
    guarded = plugin_of(admin_guard=role_in("staff"))
    with guarded.override(context_of(ADA)):
        assert status(TestClient(app_of(guarded)), "/api/admin/cache/stats") == 200
    assert status(TestClient(app_of(guarded)), "/api/admin/cache/stats") == 401


def test_another_plugin_is_not_affected(plugin: ContextPlugin[UserContext]) -> None:
    """`plugin.override` is for one plugin, `override_user_context` for each of one name."""
    same, other = plugin_of(), plugin_of(name="other")
    clients = [TestClient(Starlette(routes=[Route("/", lambda request: Response())])) for _ in range(3)]
    for client, each in zip(clients, (plugin, same, other), strict=True):
        each.install(client.app, required=True)  # type: ignore[arg-type]  # it is a Starlette

    def statuses() -> list[int]:
        return [status(client, "/") for client in clients]

    with plugin.override(context_of(ADA)):
        assert statuses() == [200, 401, 401]
    with override_user_context(context_of(ADA)):
        assert statuses() == [200, 200, 401]
    with override_user_context(context_of(ADA), key="user_context:other"):
        assert statuses() == [401, 401, 200]


def test_dependency_overrides_of_fastapi_work_inside_the_block(plugin: ContextPlugin[UserContext]) -> None:
    """They replace what an endpoint gets; that the middleware lets the request pass is the block's."""
    app = FastAPI()

    @app.get("/me")
    def endpoint(user: UserContext = Depends(get_user_context)) -> str:  # noqa: B008 - as FastAPI has it
        return user.email

    plugin.install(app, required=True)
    client = TestClient(app)
    with plugin.override(context_of(ADA)):
        assert client.get("/me").json() == ADA
        app.dependency_overrides[get_user_context] = lambda: context_of(BOB)
        assert client.get("/me").json() == BOB
    assert status(client) == 401


@pytest.mark.parametrize("value", [ADA, by_header({"headers": [(b"x-user", ADA.encode())]})])
def test_an_identity_instead_of_a_context_is_refused(plugin: ContextPlugin[UserContext], value: object) -> None:
    """Endpoints would get an address."""
    with pytest.raises(TypeError, match="takes a context"):
        plugin.override(value)  # type: ignore[arg-type]  # what is refused


def test_blocks_that_end_out_of_order_leave_nothing(plugin: ContextPlugin[UserContext]) -> None:
    """The later one holds until its own end; then neither is `current_user_context()`."""
    first, second = plugin.override(context_of(ADA)), plugin.override(context_of(BOB))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert current_user_context() == context_of(BOB)
    second.__exit__(None, None, None)
    assert current_user_context() is None


def test_a_block_that_is_over_holds_in_no_copy_of_its_context(plugin: ContextPlugin[UserContext]) -> None:
    """A fixture may be entered in the copy of a task and left outside of it."""
    copy, block = contextvars.copy_context(), plugin.override(context_of(ADA))
    copy.run(block.__enter__)
    assert copy.run(current_user_context) == context_of(ADA)
    block.__exit__(None, None, None)
    assert copy.run(current_user_context) is None
