"""The middleware around Litestar and inside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from litestar import Litestar, Request, Router, WebSocket, asgi, get, websocket
from litestar.middleware import DefineMiddleware
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import Message, Receive, Scope, Send

from ctxmiddleware import (
    BearerToken,
    UserContextMiddleware,
    current_user_context,
    user_context_from_scope,
)

from ..people import ADA, DOWN, NOBODY, TOKEN, OpenedSource, as_user, plugin_of


@get("/me")
async def me(request: Request[Any, Any, Any]) -> dict[str, str | None]:
    """Tell who it is, by every way there is."""
    context = user_context_from_scope(dict(request.scope))
    assert context is current_user_context()
    assert context is request.state["user_context"]
    return {"email": None if context is None else context.email}


@websocket("/live")
async def live(socket: WebSocket[Any, Any, Any]) -> None:
    """Say who it is."""
    await socket.accept()
    context = current_user_context()
    await socket.send_json({"email": None if context is None else context.email})
    await socket.close()


def test_it_wraps_a_litestar_app() -> None:
    """Around the app it runs both lifespans, and serves and refuses http and websockets."""
    source = OpenedSource()

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        assert source.is_open
        yield
        assert source.is_open

    app = Litestar([me, live], lifespan=[lifespan], openapi_config=None, logging_config=None)
    with TestClient(UserContextMiddleware(app, plugin=plugin_of(source))) as client:  # type: ignore[arg-type]  # Litestar's own scope type
        assert client.get("/me", headers=as_user(ADA)).json() == {"email": ADA}
        assert client.get("/me", headers=as_user(NOBODY)).json() == {"email": None}
        assert client.get("/me", headers=as_user(DOWN)).status_code == 503
        with client.websocket_connect("/live", headers=as_user(ADA)) as socket:
            assert socket.receive_json() == {"email": ADA}
        with (
            pytest.raises(WebSocketDenialResponse) as caught,
            client.websocket_connect("/live", headers=as_user(DOWN)),
        ):
            raise AssertionError("let in")
        assert caught.value.status_code == 503
    assert source.events == ["open", "close"]


def test_it_is_a_middleware_of_litestars_own_stack() -> None:
    """Given to Litestar it sees no lifespan, opens at the first request and closes with the loop."""
    source = OpenedSource()
    middleware = DefineMiddleware(UserContextMiddleware, plugin=plugin_of(source), required=True)  # type: ignore[arg-type]  # Litestar's own scope type
    with TestClient(Litestar([me], middleware=[middleware], openapi_config=None, logging_config=None)) as client:  # type: ignore[arg-type]
        assert source.events == []
        assert client.get("/me", headers=as_user(ADA)).json() == {"email": ADA}
        assert client.get("/me").status_code == 401
        assert source.events == ["open"]
    assert source.events == ["open", "close"]


def test_required_and_its_admin() -> None:
    """Litestar's routing cannot be read, so nothing is freed by itself; the admin's own path can be excluded."""
    plugin = plugin_of(admin_guard=BearerToken(TOKEN))
    path = "/api/admin/cache"
    app: Any = Litestar(
        [me, asgi(path, is_mount=True, copy_scope=True)(plugin.admin)], openapi_config=None, logging_config=None
    )
    authorized = {"authorization": f"Bearer {TOKEN}"}
    closed = TestClient(UserContextMiddleware(app, plugin=plugin, required=True))
    assert closed.get(f"{path}/stats", headers=authorized).json()["reason"] == "anonymous"
    opened = TestClient(UserContextMiddleware(app, plugin=plugin, required=True, exclude=[path]))
    assert opened.get(f"{path}/stats", headers=authorized).json()["pid"] > 0
    assert opened.get(f"{path}/stats").status_code == 401
    assert opened.get("/me").json()["reason"] == "anonymous"


SECRET_MOUNT = asgi("/secret", is_mount=True, copy_scope=False)(PlainTextResponse("secret"))


@get("/private")
async def private() -> str:
    """Answer with what is not for all."""
    return "secret"


@pytest.mark.parametrize("path", ["/private", "/secret", "/secret/health"])
def test_an_excluded_answer_is_held_back_until_litestar_has_routed_it(path: str) -> None:
    """A path that is rewritten on its way to Litestar is compared with the route that Litestar has found."""
    app: Any = Litestar([private, SECRET_MOUNT], openapi_config=None, logging_config=None)

    async def rewriting(scope: Scope, receive: Receive, send: Send) -> None:
        scope["path"] = path
        await app(scope, receive, send)

    client = TestClient(UserContextMiddleware(rewriting, plugin=plugin_of(), required=True, exclude=["/health"]))
    answer = client.get("/health")
    assert (answer.status_code, "secret" in answer.text) == (401, False)


class Original:
    """A middleware that routes a request by a header, on a copy of the scope or with the path put back."""

    def __init__(self, app: Any, *, is_copied: bool) -> None:
        self.app, self._is_copied = app, is_copied

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        before, path = scope["path"], dict(scope["headers"])[b"x-original-url"].decode()

        async def put_back(message: Message) -> None:
            if scope["path"] == path:
                scope["path"] = before
            await send(message)

        scope.update({} if self._is_copied else {"path": path})
        await self.app({**scope, "path": path} if self._is_copied else scope, receive, put_back)


@pytest.mark.parametrize("is_copied", [True, False])
@pytest.mark.parametrize("path", ["/private", "/secret/health"])
def test_an_excluded_answer_is_refused_where_the_scope_does_not_show_the_rewrite(path: str, *, is_copied: bool) -> None:
    """A copy has no route of Litestar on it, and a route that was put beside another path is not of that path."""
    app = Original(Litestar([private, SECRET_MOUNT], openapi_config=None, logging_config=None), is_copied=is_copied)
    client = TestClient(UserContextMiddleware(app, plugin=plugin_of(), required=True, exclude=["/health"]))
    answer = client.get("/health", headers={"x-original-url": path})
    assert (answer.status_code, "secret" in answer.text) == (401, False)


def test_a_mounts_path_is_compared_as_a_whole() -> None:
    """One that ends as the excluded path does is another."""
    app: Any = Litestar(
        [asgi("/x", is_mount=True, copy_scope=False)(PlainTextResponse("secret"))],
        openapi_config=None,
        logging_config=None,
    )

    async def stripping(scope: Scope, receive: Receive, send: Send) -> None:
        scope["path"] = scope["path"].removeprefix("/health")
        await app(scope, receive, send)

    client = TestClient(UserContextMiddleware(stripping, plugin=plugin_of(), required=True, exclude=["/health"]))
    assert client.get("/health/x/payroll").status_code == 401


def test_a_mount_in_a_router_of_litestar_is_excluded_by_its_whole_path() -> None:
    """The handler has the end of it, and the app's route the whole."""
    app: Any = Litestar([Router("/v1", route_handlers=[SECRET_MOUNT])], openapi_config=None, logging_config=None)
    client = TestClient(UserContextMiddleware(app, plugin=plugin_of(), required=True, exclude=["/v1/secret/a"]))
    assert client.get("/v1/secret/a/b").text == "secret"
    assert client.get("/v1/secret/b").status_code == 401


@pytest.mark.parametrize(
    ("exclude", "path"), [("/private", "/private"), ("/secret", "/secret/a/b"), ("/nope", "/nope")]
)
def test_an_excluded_path_passes_litestar(exclude: str, path: str) -> None:
    """To a handler, to a mounted app, and to no route."""
    app: Any = Litestar([private, SECRET_MOUNT], openapi_config=None, logging_config=None)
    client = TestClient(UserContextMiddleware(app, plugin=plugin_of(), required=True, exclude=[exclude]))
    assert client.get(path).status_code == (404 if path == "/nope" else 200)


def test_in_litestars_own_stack_a_root_path_was_taken_away() -> None:
    """Litestar leaves it on the scope of a path that does not hold it any more."""
    middleware = DefineMiddleware(UserContextMiddleware, plugin=plugin_of(), required=True, exclude=["/private"])  # type: ignore[arg-type]  # Litestar's own scope type
    app: Any = Litestar([private, me], middleware=[middleware], openapi_config=None, logging_config=None)
    client = TestClient(app, root_path="/api")
    assert client.get("/private").text == "secret"
    assert client.get("/me").status_code == 401


def test_an_app_of_litestar_in_a_mount_of_starlette_is_read_too() -> None:
    """It tidies the path, which a mount of Starlette leaves as it was."""
    app: Any = Starlette(routes=[Mount("", app=Litestar([private, me], openapi_config=None, logging_config=None))])  # type: ignore[arg-type]  # Litestar's own scope type
    client = TestClient(UserContextMiddleware(app, plugin=plugin_of(), required=True, exclude=["/private"]))
    assert [client.get(path).text for path in ("/private", "/private/")] == ["secret"] * 2
    assert client.get("/me").status_code == 401
