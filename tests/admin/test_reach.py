"""Where the admin can be reached although a context is required, and that nothing else is freed by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar
from urllib.parse import quote

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from ctxmiddleware import BearerToken, ConfigurationError, UserContextMiddleware
from ctxmiddleware.routing import leads_to

from ..asgi import ask, http_scope, no_lifespan
from ..people import ADA, BROKEN, DOWN, GONE, NOBODY, TOKEN, as_user, plugin_of

PATH = "/api/admin/cache"
AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}
Build = Callable[[ASGIApp], ASGIApp]


async def page(request: Request) -> Response:
    """Answer that the application was reached."""
    return JSONResponse("the app's")


async def live(websocket: WebSocket) -> None:
    """Open a websocket of the application's."""
    await websocket.accept()
    await websocket.close()


async def passes_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Do nothing, in a middleware of the widespread kind."""
    return await call_next(request)


def fastapi_mounted(admin: ASGIApp) -> ASGIApp:
    """Mount it in a FastAPI app."""
    app = FastAPI()
    app.get("/me")(lambda: "the app's")
    app.mount(PATH, admin)
    return app


def fastapi_nested(admin: ASGIApp) -> ASGIApp:
    """Mount it in an app that is mounted."""
    inner = FastAPI()
    inner.mount("/cache", admin)
    app = FastAPI()
    app.mount("/api/admin", inner)
    return app


def fastapi_included(admin: ASGIApp) -> ASGIApp:
    """Mount it in a router that is included in a router that is included."""
    inner, outer = APIRouter(), APIRouter()
    inner.get("/page")(lambda: "the app's")
    inner.mount("/cache", admin)
    outer.include_router(inner, prefix="/admin")
    app = FastAPI()
    app.include_router(outer, prefix="/api")
    return app


def starlette_wrapped(admin: ASGIApp) -> ASGIApp:
    """Wrap it in middlewares before it is mounted."""
    wrapped = GZipMiddleware(BaseHTTPMiddleware(CORSMiddleware(admin, allow_origins=["*"]), dispatch=passes_on))
    routes = [Mount(PATH, app=wrapped)]
    return Starlette(routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=passes_on)])


PLACES: dict[str, Build] = {
    "mount": lambda admin: Starlette(routes=[Route("/me", page), Mount(PATH, app=admin)]),
    "nested mounts": lambda admin: Starlette(
        routes=[Mount("/api", routes=[Route("/me", page), Mount("/admin", routes=[Mount("/cache", app=admin)])])]
    ),
    "a parameter on the way": lambda admin: Starlette(
        routes=[Mount("/{tenant}/admin", routes=[Mount("/cache", admin)])]
    ),
    "host": lambda admin: Starlette(routes=[Host("testserver", app=Router([Mount(PATH, app=admin)]))]),
    "host in a mount": lambda admin: Starlette(
        routes=[Mount("/api", routes=[Host("testserver", app=Router([Mount("/admin/cache", app=admin)]))])]
    ),
    "router": lambda admin: Router([Mount(PATH, app=admin)]),
    "app in an app": lambda admin: Starlette(
        routes=[Mount("/api", app=Starlette(routes=[Mount("/admin/cache", app=admin)]))]
    ),
    "mount with middleware": lambda admin: Starlette(
        routes=[Mount(PATH, app=admin, middleware=[Middleware(GZipMiddleware)])]
    ),
    "behind a method that differs": lambda admin: Starlette(
        routes=[Route("/{path:path}", page, methods=["PATCH"]), Mount(PATH, app=admin)]
    ),
    "wrapped": starlette_wrapped,
    "fastapi": fastapi_mounted,
    "fastapi in fastapi": fastapi_nested,
    "fastapi's included router": fastapi_included,
}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Build:
    """Every way of mounting the admin."""
    return PLACES[request.param]


@pytest.mark.parametrize("user", [None, NOBODY, GONE, DOWN, BROKEN, ADA])
def test_the_admin_is_reached_whatever_becomes_of_the_caller(place: Build, user: str | None) -> None:
    """With a context required, and with the source down, the admin answers by its own guard and by nothing else."""
    plugin = plugin_of(admin_guard=BearerToken(TOKEN))
    client = TestClient(UserContextMiddleware(place(plugin.admin), plugin=plugin, required=True))
    headers = as_user(user)
    assert client.get(f"{PATH}/stats", headers=headers | AUTHORIZED).json()["pid"] > 0
    assert client.post(f"{PATH}/clear", headers=headers | AUTHORIZED).json()["redis"] == "absent"
    refused = client.get(f"{PATH}/stats", headers=headers)
    assert (refused.status_code, refused.json()["detail"][:4]) == (401, "send")


@pytest.mark.parametrize(
    "path",
    ["/me", "/api", "/api/admin", f"{PATH}x/stats", "/api/admin//cache/stats", "/api/Admin/cache/stats", "/api/me"],
)
def test_nothing_beside_the_admin_is_freed(place: Build, path: str) -> None:
    """What only resembles the admin's path is refused as everything else is."""
    plugin = plugin_of(admin_guard=BearerToken(TOKEN))
    client = TestClient(UserContextMiddleware(place(plugin.admin), plugin=plugin, required=True))
    assert client.get(path, headers=AUTHORIZED).json()["reason"] == "anonymous"


@pytest.mark.parametrize("place_", ["mount", "nested mounts", "wrapped", "fastapi"])
def test_it_is_reached_below_a_root_path(place_: str) -> None:
    """A proxy's prefix changes nothing."""
    plugin = plugin_of(admin_guard=BearerToken(TOKEN))
    app = UserContextMiddleware(PLACES[place_](plugin.admin), plugin=plugin, required=True)
    client = TestClient(app, root_path="/behind")
    assert client.get(f"/behind{PATH}/stats", headers=AUTHORIZED).status_code == 200
    assert client.get("/behind/me").status_code == 401


def test_it_is_reached_through_add_middleware() -> None:
    """Within Starlette's own stack, with other middlewares outside and inside, it is found too."""
    plugin = plugin_of(admin_guard=BearerToken(TOKEN))
    app = Starlette(routes=[Route("/me", page), Mount(PATH, app=plugin.admin)])
    app.add_middleware(BaseHTTPMiddleware, dispatch=passes_on)
    app.add_middleware(UserContextMiddleware, plugin=plugin, required=True)
    app.add_middleware(GZipMiddleware)
    client = TestClient(app)
    assert client.get(f"{PATH}/stats", headers=AUTHORIZED).status_code == 200
    assert client.get("/me", headers=AUTHORIZED).status_code == 401


@pytest.mark.parametrize(
    "first",
    [
        Route("/{path:path}", page, methods=["GET", "POST"]),
        Mount("/api", routes=[Route("/{path:path}", page)]),
        Mount("/", app=Starlette(routes=[Route("/{path:path}", page)])),
        Host("testserver", app=Router([Route("/{path:path}", page)])),
    ],
    ids=["route", "mount", "mount of everything", "host"],
)
def test_a_route_that_shadows_the_admin_is_not_freed(first: Any) -> None:
    """Where another route takes the admin's path, who comes there is refused: it is not the admin they would reach."""
    plugin = plugin_of(admin_guard=BearerToken(TOKEN))
    app = Starlette(routes=[first, Mount(PATH, app=plugin.admin)])
    client = TestClient(UserContextMiddleware(app, plugin=plugin, required=True))
    assert client.get(f"{PATH}/stats", headers=AUTHORIZED).json()["reason"] == "anonymous"
    assert client.get(f"{PATH}/stats", headers=as_user(ADA)).json() == "the app's"


def test_with_two_plugins_both_admins_are_reached() -> None:
    """Each admin has its own guard, whichever middleware stands before it; a page of the application has none."""
    one, other = plugin_of(admin_guard=BearerToken(TOKEN)), plugin_of(name="other", admin_guard=BearerToken(TOKEN))
    routes = [Mount("/one", app=one.admin), Mount("/other", app=other.admin), Route("/page", page)]
    inner = UserContextMiddleware(Starlette(routes=routes), plugin=other, required=True)
    client = TestClient(UserContextMiddleware(inner, plugin=one, required=True))
    for path in ("/one", "/other"):
        assert client.get(f"{path}/stats", headers=AUTHORIZED).status_code == 200
        assert client.get(f"{path}/stats").json()["detail"].startswith("send Authorization")
    assert client.get("/page", headers=AUTHORIZED).json()["reason"] == "anonymous"


def test_a_websocket_to_the_admin_is_the_admins_to_refuse() -> None:
    """It is closed by the admin, while one to the application is denied for want of a context."""
    plugin = plugin_of(admin_guard=BearerToken(TOKEN))
    app = Starlette(routes=[WebSocketRoute("/live", live), Mount(PATH, app=plugin.admin)])
    client = TestClient(UserContextMiddleware(app, plugin=plugin, required=True))
    with pytest.raises(WebSocketDisconnect) as caught, client.websocket_connect(f"{PATH}/stats"):
        raise AssertionError("let in")
    assert (caught.type, caught.value.code) == (WebSocketDisconnect, 1008)
    with pytest.raises(WebSocketDenialResponse), client.websocket_connect("/live"):
        raise AssertionError("let in")


class Itself:
    """An app that says it wraps itself."""

    @property
    def app(self) -> Itself:
        return self


class Foreign:
    """An app of another framework, whose routes are not Starlette's."""

    routes: ClassVar = [object()]


@pytest.mark.anyio
@pytest.mark.parametrize("app", [Itself(), Foreign(), no_lifespan, Starlette(), Router()])
async def test_an_app_that_cannot_be_read_leads_nowhere(app: Any) -> None:
    """Where nobody can tell who is reached, the request is refused, without an error and without an end."""
    plugin = plugin_of()
    assert leads_to(app, http_scope(f"{PATH}/stats")) is None
    answer = await ask(UserContextMiddleware(app, plugin=plugin, required=True), http_scope(f"{PATH}/stats"))
    assert answer.status == 401


@pytest.mark.anyio
async def test_the_admin_itself_can_be_the_app() -> None:
    """A process that serves nothing else may wrap the admin directly."""
    plugin = plugin_of(admin_guard=BearerToken(TOKEN))
    app = UserContextMiddleware(plugin.admin, plugin=plugin, required=True)
    assert TestClient(app).get("/stats", headers=AUTHORIZED).status_code == 200


@pytest.mark.anyio
async def test_who_reaches_the_admin_though_failed_carries_the_reason() -> None:
    """Behind the admin's door the scope says why there is no context, and what was done is counted as that."""
    plugin = plugin_of(admin_guard=BearerToken(TOKEN))
    app = UserContextMiddleware(Starlette(routes=[Mount(PATH, app=plugin.admin)]), plugin=plugin, required=True)
    scope = http_scope(f"{PATH}/stats", user=DOWN)
    assert (await ask(app, scope)).status == 401
    assert (scope["user_context"], scope["user_context_refusal"]) == (None, "unavailable")
    assert plugin.stats().requests == {"unavailable": 1}


def test_install_mounts_the_admin_ahead_of_everything() -> None:
    """One call adds the middleware and the admin, even before a route that takes every path."""
    plugin = plugin_of(admin_guard=BearerToken(TOKEN))
    app = Starlette(routes=[Route("/{path:path}", page)])
    plugin.install(app, required=True, exclude=["/health"])
    client = TestClient(app)
    assert client.get(f"{PATH}/stats", headers=AUTHORIZED).json()["pid"] > 0
    assert client.get("/me").status_code == 401
    assert client.get("/health").json() == client.get("/me", headers=as_user(ADA)).json() == "the app's"
    assert app.url_path_for("ctxmiddleware-admin", path="/stats") == f"{PATH}/stats"


def test_install_takes_another_path() -> None:
    """The admin's place can be chosen, with or without a trailing slash."""
    plugin = plugin_of(admin_guard=BearerToken(TOKEN))
    app = Starlette()
    plugin.install(app, admin_path="/ops/cache/")
    assert TestClient(app).get("/ops/cache/stats", headers=AUTHORIZED).status_code == 200


@pytest.mark.parametrize("options", [{"admin_path": ""}, {"admin_path": "/"}, {"admin_path": "ops"}, {"exclude": "/x"}])
def test_install_refuses_what_cannot_be_a_path_and_changes_nothing(options: dict[str, Any]) -> None:
    """A failed call leaves the app as it was."""
    app = Starlette()
    with pytest.raises(ConfigurationError):
        plugin_of().install(app, **options)
    assert (app.routes, app.user_middleware) == ([], [])


def test_install_refuses_an_app_that_serves_already_and_changes_nothing() -> None:
    """A middleware that comes too late would leave the admin mounted without it."""
    app = Starlette(routes=[Route("/", page)])
    TestClient(app).get("/")
    with pytest.raises(RuntimeError):
        plugin_of().install(app)
    assert len(app.routes) == 1


@pytest.mark.anyio
async def test_a_path_that_is_rewritten_inside_leads_nobody_past_the_refusal() -> None:
    """Asking for the admin and being led elsewhere is refused: nothing of what was reached comes out."""
    plugin = plugin_of(admin_guard=BearerToken(TOKEN))
    router = Starlette(routes=[Mount(PATH, app=plugin.admin), Route("/{path:path}", page)])

    class Rewriting:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app({**scope, "path": "/me", "raw_path": b"/me"}, receive, send)

    app = UserContextMiddleware(Rewriting(router), plugin=plugin, required=True)
    for user, status in ((None, 401), (DOWN, 503)):
        answer = await ask(app, http_scope(f"{PATH}/stats", user=user))
        assert (answer.status, b"the app's" in answer.body) == (status, False)


@pytest.mark.anyio
async def test_a_layer_holds_back_answers_on_a_copied_scope_too() -> None:
    """What one middleware has freed is no pass through another: an app's own call on a copy is held back as well."""
    one, other = plugin_of(), plugin_of(name="other")
    seen: list[Message] = []

    class Led:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app({**scope, "path": "/me", "raw_path": b"/me"}, receive, send)

    class Asks:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def take(message: Message) -> None:
                seen.append(message)

            await self.app(dict(scope), receive, take)

    router = Starlette(routes=[Mount(PATH, app=one.admin), Route("/{path:path}", page)])
    inner = UserContextMiddleware(Led(router), plugin=other, required=True)
    await ask(UserContextMiddleware(Asks(inner), plugin=one, required=True), http_scope(f"{PATH}/stats"))
    assert seen[0]["status"] == 401
    assert not any(b"the app's" in message.get("body", b"") for message in seen)


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
@pytest.mark.parametrize(
    "address", ["a\nb@x.example", "\na@x.example\n", "a@x.example\r\n", "a\u2028b@x.example", "\n"]
)
@pytest.mark.parametrize("admin_path", [PATH, "/ops"])
def test_an_address_with_the_end_of_a_line_is_invalidated_through_install(
    kind: type[Starlette], address: str, admin_path: str
) -> None:
    """The mount takes every path below it, and an address of white space alone names no user."""
    plugin = plugin_of(admin_guard=BearerToken(TOKEN))
    app = kind()
    plugin.install(app, required=True, admin_path=admin_path)
    answer = TestClient(app).post(f"{admin_path}/invalidate/{quote(address, safe='')}", headers=AUTHORIZED)
    assert answer.status_code == (200 if address.strip() else 400), answer.text


@pytest.mark.parametrize("path", ["/clear%0A", "/clear/%0A", "/stats%0A", "/invalidate%0A", "/openapi.json%0A"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_that_ends_with_the_end_of_a_line_is_another(method: str, path: str) -> None:
    """Two paths are never one."""
    plugin = plugin_of(admin_guard=BearerToken(TOKEN))
    app = Starlette()
    plugin.install(app)
    assert TestClient(app).request(method, f"{PATH}{path}", headers=AUTHORIZED).status_code == 404
