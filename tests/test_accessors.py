"""How an application reaches the context, and what it is told where there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import anyio
import anyio.to_thread
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import Scope
from starlette.websockets import WebSocket

from ctxmiddleware import (
    ContextError,
    ContextPlugin,
    Identity,
    MiddlewareMissing,
    NotAuthenticated,
    NotPermitted,
    UserContext,
    UserContextMiddleware,
    current_user_context,
    get_user_context,
    user_context_from_scope,
)
from ctxmiddleware.testing import override_user_context

from .people import ADA, BOB, GONE, NOBODY, as_user, context_of, plugin_of

Get = Callable[[HTTPConnection], object]


def connection(**scope: object) -> HTTPConnection:
    """Return a connection with this on its scope."""
    return HTTPConnection({"type": "http", **scope})


@pytest.fixture(params=["get_user_context", "plugin.get"])
def get(request: pytest.FixtureRequest) -> Get:
    """Both ways of getting a context."""
    return get_user_context if request.param == "get_user_context" else plugin_of().get


def test_a_context_is_returned_as_it_is(get: Get) -> None:
    """The very object on the scope is what the accessors give."""
    context = context_of(ADA)
    assert get(connection(user_context=context)) is context
    assert user_context_from_scope({"user_context": context}) is context


@pytest.mark.parametrize("more", [{}, {"user_context_refusal": "anonymous"}, {"user_context_refusal": "excluded"}])
def test_an_anonymous_request_is_a_401(get: Get, more: dict[str, str]) -> None:
    """The error is an HTTPException with the challenge a 401 needs, and one of the library's own."""
    with pytest.raises(NotAuthenticated) as caught:
        get(connection(user_context=None, **more))
    assert caught.value.status_code == 401
    assert caught.value.headers == {"WWW-Authenticate": "Bearer"}
    assert isinstance(caught.value, HTTPException)
    assert isinstance(caught.value, ContextError)


@pytest.mark.parametrize("reason", ["unknown", "inactive"])
def test_a_signed_in_user_without_a_context_is_a_403(get: Get, reason: str) -> None:
    """Signing in again would not help who is unknown or not active."""
    with pytest.raises(NotPermitted) as caught:
        get(connection(user_context=None, user_context_refusal=reason))
    assert (caught.value.status_code, caught.value.reason) == (403, reason)
    assert isinstance(caught.value, HTTPException)
    assert isinstance(caught.value, ContextError)


def test_a_request_that_no_middleware_has_seen_is_a_mistake_in_the_app(get: Get) -> None:
    """A forgotten middleware is not taken for an anonymous user."""
    with pytest.raises(MiddlewareMissing, match="add UserContextMiddleware"):
        get(connection())
    assert user_context_from_scope({}) is None
    assert current_user_context() is None


def test_a_plugin_of_another_name_has_keys_of_its_own() -> None:
    """The typed accessor reads its own plugin's key and no other."""
    other: ContextPlugin[str] = ContextPlugin(source=_Names(), context_type=str, name="other")
    assert other.get(connection(**{"user_context:other": "x", "user_context": None})) == "x"
    with pytest.raises(NotPermitted):
        other.get(connection(**{"user_context:other": None, "user_context:other_refusal": "unknown"}))
    with pytest.raises(MiddlewareMissing, match="user_context:other"):
        other.get(connection(user_context="x"))


class _Names:
    """A source of strings."""

    async def fetch(self, identity: Identity) -> str:
        return identity.name


def test_users_tests_can_put_a_context_in_place() -> None:
    """`override_user_context` sets the context variable for a block, and puts the former back."""
    with override_user_context(context_of(ADA)):
        with override_user_context(context_of(BOB)):
            assert current_user_context() == context_of(BOB)
        assert current_user_context() == context_of(ADA)
    assert current_user_context() is None


def _email() -> str | None:
    context = current_user_context()
    return None if context is None else context.email


def client_of(*routes: Route | WebSocketRoute) -> TestClient:
    """Return a client of an app with these routes, behind the middleware and a BaseHTTPMiddleware inside it."""

    async def inside(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    app = Starlette(routes=routes)
    app.add_middleware(BaseHTTPMiddleware, dispatch=inside)
    app.add_middleware(UserContextMiddleware, plugin=plugin_of())
    return TestClient(app)


def test_every_way_leads_to_the_same_context() -> None:
    """Scope, state, accessor and context variable agree in an endpoint, in a thread and in a child task."""
    seen: list[UserContext | None] = []

    async def me(request: Request) -> JSONResponse:
        seen.extend(
            [
                get_user_context(request),
                request.state.user_context,
                request.scope["user_context"],
                user_context_from_scope(request.scope),
                current_user_context(),
                await anyio.to_thread.run_sync(current_user_context),
            ]
        )

        async def child() -> None:
            seen.append(current_user_context())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child)
        return JSONResponse(None)

    client_of(Route("/me", me)).get("/me", headers=as_user(ADA))
    assert seen == [context_of(ADA)] * 7


def test_streams_and_background_tasks_know_the_user() -> None:
    """What runs after the response has begun, or after it has ended, is still the request's."""
    after: list[str | None] = []

    async def chunks() -> AsyncIterator[str]:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
            yield f"{_email()} "

    async def stream(request: Request) -> Response:
        return StreamingResponse(chunks(), background=BackgroundTask(lambda: after.append(_email())))

    client = client_of(Route("/stream", stream))
    for user in (ADA, None, BOB):
        assert client.get("/stream", headers=as_user(user)).text.split() == [str(user)] * 3
    assert after == [ADA, None, BOB]


@pytest.mark.parametrize(("user", "status"), [(None, 401), (NOBODY, 403), (GONE, 403), (ADA, 200)])
def test_starlette_answers_for_an_endpoint_that_asks_in_vain(user: str | None, status: int) -> None:
    """An endpoint only asks; that there is no context becomes the right answer by itself, on websockets too."""

    async def me(request: Request) -> JSONResponse:
        return JSONResponse(get_user_context(request).email)

    async def live(websocket: WebSocket) -> None:
        context = get_user_context(websocket)
        await websocket.accept()
        await websocket.send_json(context.email)
        await websocket.close()

    client = client_of(Route("/me", me), WebSocketRoute("/live", live))
    answer = client.get("/me", headers=as_user(user))
    assert answer.status_code == status
    assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    if status == 200:
        with client.websocket_connect("/live", headers=as_user(user)) as websocket:
            assert websocket.receive_json() == ADA
        return
    with pytest.raises(WebSocketDenialResponse) as caught, client.websocket_connect("/live", headers=as_user(user)):
        raise AssertionError("let in")
    assert caught.value.status_code == status


def test_an_error_handler_still_knows_the_user_by_the_scope() -> None:
    """Starlette's outermost handler sees no context variable any more, but still the scope's key."""
    seen: list[Scope] = []

    async def fails(request: Request) -> Response:
        raise KeyError("boom")

    async def handler(request: Request, error: Exception) -> Response:
        seen.append(request.scope)
        return Response(status_code=500)

    app = Starlette(routes=[Route("/", fails)], exception_handlers={Exception: handler})
    app.add_middleware(UserContextMiddleware, plugin=plugin_of())
    answer = TestClient(app, raise_server_exceptions=False).get("/", headers=as_user(ADA))
    assert answer.status_code == 500
    assert seen[0]["user_context"] == context_of(ADA)
