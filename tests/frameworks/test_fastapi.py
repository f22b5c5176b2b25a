"""The middleware in FastAPI: dependencies, websockets, routers and the OpenAPI document."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import anyio
import msgspec
import pydantic
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from ctxmiddleware import (
    BearerToken,
    UserContext,
    UserContextMiddleware,
    current_user_context,
    get_user_context,
)

from ..people import ADA, BOB, DOWN, GONE, NOBODY, TOKEN, OpenedSource, as_user, context_of, plugin_of

User = Annotated[UserContext, Depends(get_user_context)]
after: list[str | None] = []


def _email() -> str | None:
    context = current_user_context()
    return None if context is None else context.email


def application(source: OpenedSource, *, required: bool = False) -> FastAPI:
    """Return an app that uses the context in every way FastAPI has."""
    plugin = plugin_of(source, admin_guard=BearerToken(TOKEN))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        assert source.is_open
        yield {"theirs": "kept"}
        assert source.is_open

    app = FastAPI(lifespan=lifespan)
    router = APIRouter(dependencies=[Depends(get_user_context)])

    @app.get("/me")
    async def me(user: User) -> str:
        assert current_user_context() is user
        return user.email

    @app.get("/sync")
    def in_a_thread(user: User) -> str:
        assert current_user_context() is user
        return user.email

    @app.get("/typed")
    async def typed(user: UserContext = Depends(plugin.get)) -> str:  # noqa: B008 - what FastAPI reads
        return user.employee.email

    @router.get("/guarded")
    async def guarded() -> str | None:
        return _email()

    @app.get("/open")
    async def for_everybody() -> str | None:
        return _email()

    @app.get("/stream")
    async def stream(user: User, background: BackgroundTasks) -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            for _ in range(2):
                await anyio.lowlevel.checkpoint()
                yield f"{_email()} "

        background.add_task(lambda: after.append(_email()))
        return StreamingResponse(chunks(), background=background)

    @app.websocket("/live")
    async def live(websocket: WebSocket, user: User) -> None:
        await websocket.accept()
        await websocket.send_json([user.email, _email(), websocket.state.user_context.email])
        await websocket.close()

    app.include_router(router, prefix="/router")
    plugin.install(app, required=required, exclude=["/docs", "/openapi.json"])
    return app


@pytest.fixture
def source() -> OpenedSource:
    """A source that says whether it is open."""
    return OpenedSource()


@pytest.mark.parametrize("path", ["/me", "/sync", "/typed", "/router/guarded"])
@pytest.mark.parametrize("opened", [True, False], ids=["lifespan", "no lifespan"])
def test_a_dependency_gives_the_context_or_the_right_refusal(
    source: OpenedSource,
    path: str,
    opened: bool,  # noqa: FBT001
) -> None:
    """`Depends(get_user_context)` works as it stands, in sync and async endpoints and for whole routers."""
    client = TestClient(application(source))
    if opened:
        client.__enter__()
    try:
        assert client.get(path, headers=as_user(ADA)).json() == ADA
        anonymous = client.get(path)
        assert (anonymous.status_code, anonymous.headers["www-authenticate"]) == (401, "Bearer")
        assert [client.get(path, headers=as_user(user)).status_code for user in (NOBODY, GONE, DOWN)] == [403, 403, 503]
        assert client.get("/open").json() is None
    finally:
        if opened:
            client.__exit__(None, None, None)
    assert not source.is_open


def test_a_dependency_works_on_websockets(source: OpenedSource) -> None:
    """The same dependency serves websockets, and refuses them before they open."""
    client = TestClient(application(source))
    with client.websocket_connect("/live", headers=as_user(ADA)) as websocket:
        assert websocket.receive_json() == [ADA] * 3
    for user, status in ((None, 401), (NOBODY, 403), (DOWN, 503)):
        with (
            pytest.raises(WebSocketDenialResponse) as caught,
            client.websocket_connect("/live", headers=as_user(user)),
        ):
            raise AssertionError("let in")
        assert caught.value.status_code == status


def test_streams_and_background_tasks_know_the_user(source: OpenedSource) -> None:
    """What FastAPI runs after the endpoint has returned is still the request's."""
    after.clear()
    with TestClient(application(source)) as client:
        for user in (ADA, BOB):
            assert client.get("/stream", headers=as_user(user)).text.split() == [user, user]
    assert after == [ADA, BOB]


def test_the_openapi_document_builds_and_shows_nothing_of_the_dependency(source: OpenedSource) -> None:
    """The connection is no parameter of anybody's API, and the admin no part of the document."""
    with TestClient(application(source, required=True)) as client:
        document = client.get("/openapi.json").json()
        assert client.get("/docs").status_code == 200
    assert set(document["paths"]) == {"/me", "/sync", "/typed", "/router/guarded", "/open", "/stream"}
    assert all("parameters" not in path["get"] for path in document["paths"].values())


def test_a_dependency_can_be_overridden_in_users_tests(source: OpenedSource) -> None:
    """FastAPI's own way of faking a dependency works with ours."""
    app = application(source)
    app.dependency_overrides[get_user_context] = lambda: context_of(BOB)
    app.user_middleware.clear()
    with pytest.raises(AssertionError):
        TestClient(app).get("/me")  # the endpoint compares with the context variable, which nobody has set
    assert TestClient(app).get("/router/guarded").status_code == 200


def test_it_stands_beside_fastapis_own_security(source: OpenedSource) -> None:
    """Another dependency's scheme is in the document, and both apply."""
    app = FastAPI()

    @app.get("/both", dependencies=[Depends(HTTPBearer())])
    async def both(user: User) -> str:
        return user.email

    app.add_middleware(UserContextMiddleware, plugin=plugin_of(source))
    client = TestClient(app)
    assert client.get("/both", headers=as_user(ADA) | {"authorization": "Bearer x"}).json() == ADA
    assert client.get("/both", headers=as_user(ADA)).status_code in (401, 403)
    assert "HTTPBearer" in client.get("/openapi.json").json()["components"]["securitySchemes"]


def test_a_mounted_app_opens_lazily(source: OpenedSource) -> None:
    """A sub-app never sees a lifespan: the first request opens its plugin, and the loop's end closes it."""
    inner = FastAPI()

    @inner.get("/me")
    async def me(user: User) -> str:
        return user.email

    inner.add_middleware(UserContextMiddleware, plugin=plugin_of(source), required=True, exclude=["/health"])

    @inner.get("/health")
    async def health() -> str:
        return "well"

    outer = FastAPI()
    outer.mount("/inner", inner)
    with TestClient(outer) as client:
        assert source.events == []
        assert client.get("/inner/health").json() == "well"
        assert client.get("/inner/me", headers=as_user(ADA)).json() == ADA
        assert client.get("/inner/me").status_code == 401
        assert source.events == ["open"]
    assert source.events == ["open", "close"]


def test_plugin_lifespan_opens_it_in_the_users_own() -> None:
    """Where the middleware is in a mounted app, the outer app's lifespan can hold the plugin open."""
    source = OpenedSource()
    plugin = plugin_of(source)
    app = FastAPI(lifespan=plugin.lifespan)
    inner = FastAPI()
    inner.add_middleware(UserContextMiddleware, plugin=plugin)
    app.mount("/inner", inner)
    with TestClient(app):
        assert source.events == ["open"]
    assert source.events == ["open", "close"]


def test_endpoints_may_return_a_context_or_declare_it() -> None:
    """With an annotation, a response model, in a list, or without any of them; the document describes its fields."""
    app, context = FastAPI(), context_of(ADA)

    @app.get("/bare")
    def bare():  # type: ignore[no-untyped-def]
        return context

    @app.get("/annotated")
    def annotated() -> UserContext:
        return context

    @app.get("/model", response_model=list[UserContext | None])
    def model() -> object:
        return [context, None]

    expected = msgspec.json.decode(msgspec.json.encode(context))
    with TestClient(app) as client:
        assert client.get("/bare").json() == client.get("/annotated").json() == expected
        assert client.get("/model").json() == [expected, None]
        answer = client.get("/openapi.json").json()["paths"]["/annotated"]["get"]["responses"]["200"]
    described = answer["content"]["application/json"]["schema"]["properties"]
    assert set(described) == set(UserContext.__struct_fields__)
    assert described["employee"]["properties"]["is_active"]["type"] == "boolean"


def test_a_body_that_is_no_context_is_refused() -> None:
    """Pydantic reads a context strictly, as Redis does."""
    reader: pydantic.TypeAdapter[UserContext] = pydantic.TypeAdapter(UserContext)
    context = context_of(ADA)
    assert reader.validate_python(msgspec.to_builtins(context)) == context
    assert reader.validate_python(context) is context
    with pytest.raises(pydantic.ValidationError, match="email"):
        reader.validate_python({"email": 1})
