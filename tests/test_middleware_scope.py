"""What the middleware writes on the scope, whatever the host put there, and what it does beside others of its kind."""

from __future__ import annotations

import contextvars
import inspect
from typing import Any

import anyio
import pytest
from asgi_lifespan import LifespanManager
from httpx2 import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.authentication import SimpleUser
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Host as HostRoute
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from ctxmiddleware import (
    ContextPlugin,
    Identity,
    UserContext,
    UserContextMiddleware,
    get_user_context,
    user_context_from_scope,
)
from ctxmiddleware.testing import StaticSource

from .asgi import ask, http_scope, must_not_receive, no_lifespan, websocket_scope
from .backends import ASYNCIO, TRIO, UVLOOP
from .people import ADA, BOB, DOWN, NOBODY, as_user, by_header, context_of, known, plugin_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"state": None},
        {"extensions": None, "client": None, "server": None, "root_path": None, "raw_path": None},
        {"extensions": {}, "client": ("::1", 1), "root_path": "", "raw_path": b"/", "state": {"theirs": 1}},
        {"headers": ((b"x-user", ADA.encode()),)},
    ],
    ids=["absent", "state None", "all None", "present", "headers a tuple"],
)
@pytest.mark.parametrize("scope_of", [http_scope, websocket_scope])
async def test_what_a_host_leaves_out_is_not_missed(scope_of: Any, more: dict[str, Any]) -> None:
    """Optional parts of a scope may be absent or None, for served and for refused requests."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    plugin = plugin_of()
    scope = scope_of(user=ADA, **more)
    await UserContextMiddleware(app, plugin=plugin, required=True, exclude=["/x"])(scope, must_not_receive, _drop)
    assert seen[0]["user_context"] == seen[0]["state"]["user_context"] == context_of(ADA)
    refused = scope_of(user=NOBODY, **{**more, "headers": ()})
    await UserContextMiddleware(app, plugin=plugin, required=True)(refused, must_not_receive, _drop)
    assert len(seen) == 1


async def _drop(message: object) -> None:
    """Take a message and forget it."""


async def test_headers_that_can_be_read_once_are_read_once_by_the_middleware() -> None:
    """Whoever refuses has looked for the admin by then, and leaves the headers to whoever answers."""
    seen: list[str | None] = []

    def on_refusal(connection: Any, reason: str) -> None:
        seen.append(connection.headers.get("x-user"))

    app = UserContextMiddleware(
        Starlette(routes=[Mount("/sub", routes=[HostRoute("elsewhere", app=Starlette())])]),
        plugin=plugin_of(identify=lambda scope: None),
        required=True,
        on_refusal=on_refusal,
    )
    await ask(app, http_scope("/sub/me", headers=((name, value) for name, value in [(b"x-user", b"me")])))
    assert seen == ["me"]


async def test_a_state_that_all_requests_share_never_shows_another_user() -> None:
    """A request under way keeps its own user on its state, while others are served on the same state."""
    state: dict[str, Any] = {"pool": "shared"}
    inside, go_on = anyio.Event(), anyio.Event()
    seen: dict[str, Any] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            inside.set()
            await go_on.wait()
        assert scope["state"]["pool"] == "shared"
        seen[scope["path"]] = scope["state"]["user_context"]

    middleware = UserContextMiddleware(app, plugin=plugin_of())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, middleware, http_scope("/slow", user=ADA, state=state))
        await inside.wait()
        await ask(middleware, http_scope("/bob", user=BOB, state=state))
        await ask(middleware, http_scope("/nobody", state=state))
        go_on.set()
    assert seen == {"/slow": context_of(ADA), "/bob": context_of(BOB, number=2), "/nobody": None}


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP, TRIO])
async def test_a_host_that_shares_its_state_serves_everybody_their_own() -> None:
    """Under asgi-lifespan, which gives all requests one state, `request.state` is right for each at the same time."""

    async def me(request: Request) -> JSONResponse:
        await anyio.sleep(0.001)
        assert request.state.user_context is get_user_context(request)
        return JSONResponse(request.state.user_context.email)

    app = Starlette(routes=[Route("/me", me)])
    app.add_middleware(UserContextMiddleware, plugin=plugin_of(), required=True)
    answers: list[tuple[str, str]] = []
    async with LifespanManager(app) as manager, AsyncClient(transport=ASGITransport(manager.app)) as client:

        async def get(user: str) -> None:
            answer = await client.get("http://test/me", headers=as_user(user))
            answers.append((user, answer.json()))

        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(get, (ADA, BOB)[number % 2])
    assert len(answers) == 40
    assert [user for user, got in answers if user != got] == []


async def test_the_same_plugin_twice_resolves_once_and_both_keep_their_word() -> None:
    """The inner middleware passes through what the outer one found, and still refuses what it must."""
    source = StaticSource(known())
    asked = 0

    def identify(scope: Scope) -> Identity | None:
        nonlocal asked
        asked += 1
        return by_header(scope)

    plugin = plugin_of(source, identify)
    inner = UserContextMiddleware(no_lifespan, plugin=plugin, required=True, exclude=["/health"])
    outer = UserContextMiddleware(inner, plugin=plugin)
    assert (await ask(outer, http_scope(user=ADA))).json() == ADA
    assert asked == 1
    assert plugin.stats().requests == {"served": 1}
    assert (await ask(outer, http_scope())).status == 401
    assert (await ask(outer, http_scope(user=NOBODY))).status == 403
    assert (await ask(outer, http_scope(user=DOWN))).status == 503
    assert (await ask(outer, http_scope("/health"))).status == 200
    closed = await ask(outer, websocket_scope())
    assert closed.sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]


async def test_what_the_outer_one_excludes_is_asked_by_an_inner_one_that_does_not() -> None:
    """An exclusion is of the middleware that has it, and of no other: a signed-in user is served, nobody is refused."""
    plugin = plugin_of()
    inner = UserContextMiddleware(no_lifespan, plugin=plugin, required=True)
    outer = UserContextMiddleware(inner, plugin=plugin, exclude=["/health"])
    assert (await ask(outer, http_scope("/health", user=ADA))).status == 200
    assert (await ask(outer, http_scope("/health"))).status == 401
    both = UserContextMiddleware(
        UserContextMiddleware(no_lifespan, plugin=plugin, required=True, exclude=["/health"]),
        plugin=plugin,
        exclude=["/health"],
    )
    assert (await ask(both, http_scope("/health"))).status == 200


@pytest.mark.parametrize(("reason", "status"), [("unavailable", 503), ("failed", 500), ("anonymous", 401)])
async def test_an_inner_one_refuses_for_the_reason_the_outer_one_found(reason: str, status: int) -> None:
    """A request that the outer one let through to the admin, though it failed, is not told to sign in elsewhere."""
    plugin = plugin_of()
    inner = UserContextMiddleware(no_lifespan, plugin=plugin, required=True)
    scope = http_scope(user=ADA, user_context=None, user_context_refusal=reason)
    scope["user_context_plugin"] = (plugin, scope["headers"], scope.get("user"))
    assert (await ask(inner, scope)).status == status


async def test_two_plugins_keep_apart() -> None:
    """Plugins of different names write under different keys, each resolved by itself."""
    other: ContextPlugin[str] = ContextPlugin(
        source=StaticSource({ADA: "the other's"}), context_type=str, identify=by_header, name="other"
    )
    inner = UserContextMiddleware(no_lifespan, plugin=other, required=True)
    scope = http_scope(user=ADA)
    await ask(UserContextMiddleware(inner, plugin=plugin_of()), scope)
    assert scope["user_context"] == context_of(ADA)
    assert scope["user_context:other"] == scope["state"]["user_context:other"] == "the other's"
    assert other.get(Request(scope)) == "the other's"
    assert user_context_from_scope(scope) == context_of(ADA)
    refused = await ask(UserContextMiddleware(inner, plugin=plugin_of()), http_scope(user=BOB))
    assert refused.status == 403


async def test_a_copy_of_the_scope_with_another_user_is_another_question() -> None:
    """An app that asks itself in somebody else's name, on a copy of its scope, gets that user's context."""
    plugin = plugin_of()
    inner = UserContextMiddleware(no_lifespan, plugin=plugin, required=True)
    seen = []

    async def ask_as_bob(scope: Scope, receive: Receive, send: Send) -> None:
        copy = {**scope, "headers": http_scope(user=BOB)["headers"]}
        await inner(copy, receive, send)
        seen.append(copy["user_context"])

    scope = http_scope(user=ADA)
    await ask(UserContextMiddleware(ask_as_bob, plugin=plugin), scope)
    assert seen == [context_of(BOB, number=2)]
    assert scope["user_context"] == context_of(ADA)


async def test_somebody_signed_in_between_the_layers_is_another_question() -> None:
    """Where the user becomes known only inside of the outer layer, the inner one asks again."""
    plugin: ContextPlugin[UserContext] = ContextPlugin(source=StaticSource({ADA: context_of(ADA)}))
    inner = UserContextMiddleware(no_lifespan, plugin=plugin, required=True)
    scope = http_scope()

    async def sign_in(scope: Scope, receive: Receive, send: Send) -> None:
        scope["user"] = SimpleUser(ADA)
        await inner(scope, receive, send)

    await ask(UserContextMiddleware(sign_in, plugin=plugin), scope)
    assert scope["user_context"] == context_of(ADA)


def test_a_call_that_its_host_dropped_ends_quietly() -> None:
    """A call closed by the garbage collector, in another context than its own, raises nothing there."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    class Never:
        def __await__(self) -> Any:
            yield

    async def receive() -> Any:
        await Never()

    # Nobody is identified, so that no event loop is needed.
    middleware = UserContextMiddleware(app, plugin=plugin_of(identify=lambda scope: None))
    call = middleware(http_scope(), receive, _drop)
    assert inspect.iscoroutine(call)
    contextvars.copy_context().run(call.send, None)
    call.close()
    assert inspect.getcoroutinestate(call) == inspect.CORO_CLOSED
