"""Excluded paths that a layer inside rewrites, by whatever means: no other endpoint answers without a user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Mount, Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ctxmiddleware import UserContextMiddleware, public

from .people import plugin_of

pytestmark = pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")

SECRET = "the payroll"
RAN: list[str] = []


async def payroll(request: Request) -> Response:
    """Answer with what is not for all."""
    RAN.append(request.url.path)
    return PlainTextResponse(SECRET)


async def health(request: Request) -> Response:
    """Answer with what is for all."""
    return PlainTextResponse("well")


async def by_path(request: Request) -> Response:
    """Answer by the path that the route has read."""
    return PlainTextResponse(SECRET if "payroll" in request.path_params["rest"] else "well")


class Layer:
    """A middleware that takes the path from a header, on a copy of the scope."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = dict(scope.get("headers", ())).get(b"x-original-url")
        await self.app({**scope, "path": path.decode()} if path else scope, receive, send)


class InPlace(Layer):
    """A middleware that takes the path from a header."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if path := dict(scope.get("headers", ())).get(b"x-original-url"):
            scope["path"] = path.decode()
        await self.app(scope, receive, send)


class Restores(BaseHTTPMiddleware):
    """A middleware that takes the path from a header, and puts the former one back."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Pass on."""
        before = request.scope["path"]
        request.scope["path"] = request.headers.get("x-original-url", before)
        try:
            return await call_next(request)
        finally:
            request.scope["path"] = before


class Early(Layer):
    """A middleware that begins the answer before it rewrites the path."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def rest(message: Message) -> None:
            if message["type"] != "http.response.start":
                await send(message)

        path = dict(scope.get("headers", ())).get(b"x-original-url")
        if path is None:
            await self.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        scope["path"] = path.decode()
        await self.app(scope, receive, rest)


class Prefix(Layer):
    """A middleware that takes the root path from a header."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if root := dict(scope.get("headers", ())).get(b"x-forwarded-prefix"):
            scope["root_path"] = root.decode()
        await self.app(scope, receive, send)


def excluding(app: ASGIApp, *paths: str) -> UserContextMiddleware:
    """Return an app in a middleware that requires a context elsewhere."""
    RAN.clear()
    return UserContextMiddleware(app, plugin=plugin_of(), required=True, exclude=paths)


ROUTES = [Route("/health", health), Route("/payroll", payroll)]
CATCH_ALL = [Route("/{rest:path}", by_path)]
INNER = Mount("/v1", app=Starlette(routes=ROUTES, middleware=[Middleware(Layer)]))
REWRITTEN: dict[str, tuple[ASGIApp, str, str]] = {
    "on a copy": (Starlette(routes=ROUTES, middleware=[Middleware(Layer)]), "/health", "/payroll"),
    "in place": (Starlette(routes=ROUTES, middleware=[Middleware(InPlace)]), "/health", "/payroll"),
    "and put back": (Starlette(routes=ROUTES, middleware=[Middleware(Restores)]), "/health", "/payroll"),
    "put back, one route": (Starlette(routes=CATCH_ALL, middleware=[Middleware(Restores)]), "/health", "/payroll"),
    "from no route": (Starlette(routes=ROUTES, middleware=[Middleware(Layer)]), "/health/none", "/payroll"),
    "to no route, put back": (
        Starlette(routes=[Route("/payroll", payroll)], middleware=[Middleware(Restores)]),
        "/health",
        "/payroll",
    ),
    "after the answer began": (Starlette(routes=ROUTES, middleware=[Middleware(Early)]), "/health", "/payroll"),
    "around the app": (Layer(Starlette(routes=ROUTES)), "/health", "/payroll"),
    "in a mounted app": (Starlette(routes=[INNER]), "/v1/health", "/v1/payroll"),
    "in a mounted app, from no route": (Starlette(routes=[INNER]), "/v1/health/none", "/v1/payroll"),
}


@pytest.mark.parametrize("case", REWRITTEN)
def test_a_path_rewritten_to_another_endpoint_is_refused(case: str) -> None:
    """Whether the scope shows the other path, a copy has it, or the former path was put back."""
    app, path, original = REWRITTEN[case]
    client = TestClient(excluding(app, "/health", "/v1/health"))
    answer = client.get(path, headers={"x-original-url": original})
    assert SECRET not in answer.text
    assert answer.status_code == 401
    if "none" not in path and case != "to no route, put back":
        assert client.get(path).text == "well"


def test_a_root_path_rewritten_in_a_mount_is_refused() -> None:
    """A root path set by the outer mount does not allow an inner layer to add to it."""
    inner = Starlette(routes=ROUTES, middleware=[Middleware(Prefix)])
    client = TestClient(Starlette(routes=[Mount("/api", excluding(inner, "/health"))]))
    assert client.get("/api/health").text == "well"
    answer = client.get("/api/health/payroll", headers={"x-forwarded-prefix": "/api/health"})
    assert (answer.status_code, RAN) == (401, ["/api/health/payroll"])

    async def unreadable(scope: Scope, receive: Receive, send: Send) -> None:
        await Prefix(Starlette(routes=ROUTES))(scope, receive, send)

    client = TestClient(Starlette(routes=[Mount("/api", excluding(unreadable, "/health"))]))
    assert client.get("/api/health").text == "well"
    answer = client.get("/api/health/payroll", headers={"x-forwarded-prefix": "/api/health"})
    assert (answer.status_code, SECRET in answer.text) == (401, False)


def test_a_root_path_of_fastapi_is_what_its_routes_are_read_below() -> None:
    """FastAPI puts its own in the place of that of the mount it is in."""
    sub = FastAPI(root_path="/sub/health")
    sub.get("/payroll")(lambda: SECRET)
    sub.get("/health")(lambda: "well")
    client = TestClient(Starlette(routes=[Mount("/sub", excluding(sub, "/health"))]))
    assert client.get("/sub/health/payroll").status_code == 401
    assert client.get("/sub/health/health").json() == "well"


def spa(root: str) -> FastAPI:
    """Return an app with a protected POST and a public page for all GETs, below a root path."""
    app = FastAPI(root_path=root)

    @app.post("/payroll")
    def pay() -> str:
        RAN.append("payroll")
        return SECRET

    app.get("/{page:path}")(public(lambda page: "page"))
    return app


def _installed(app: Any, root: str) -> Starlette:
    outer = Starlette(routes=[Mount("/sub", app)]) if root.startswith("/sub") else app
    plugin_of().install(outer, required=True)
    return outer


@pytest.mark.parametrize("root", ["/api", "/sub/v1"])
@pytest.mark.parametrize("build", [lambda app, root: excluding(app), _installed], ids=["around", "installed"])
def test_a_public_page_opens_no_other_method_below_a_root_path(build: Callable[..., ASGIApp], root: str) -> None:
    """The routes are read as FastAPI reads them, so that the protected endpoint is not run and then refused."""
    RAN.clear()
    assert TestClient(build(spa(root), root)).post(f"{root}/payroll").status_code == 401
    assert RAN == []


def _of_version(version: bytes) -> type[APIRoute]:
    class Versioned(APIRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            found = dict(scope["headers"]).get(b"x-version", b"1")
            return super().matches(scope) if found == version else (Match.NONE, {})

    return Versioned


@pytest.mark.parametrize("is_included", [True, False])
def test_routes_of_a_class_of_their_own_open_no_other(*, is_included: bool) -> None:
    """FastAPI's stand-in for an included route does not say what the route's own `matches` says."""
    RAN.clear()
    app = FastAPI()
    for version, endpoint in ((b"1", public(lambda: "open")), (b"2", lambda: RAN.append("protected"))):
        router = APIRouter(route_class=_of_version(version)) if is_included else app.router
        router.route_class = _of_version(version)
        router.post("/x")(endpoint)
        if is_included:
            app.include_router(router)
    client = TestClient(excluding(app))
    assert client.post("/x", headers={"x-version": "2"}).status_code == 401
    assert RAN == []


def test_a_known_layers_own_answer_is_kept() -> None:
    """Nothing inside has been reached, and nothing may have been changed."""
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["example.com"])
    client = TestClient(excluding(Starlette(routes=ROUTES, middleware=[hosts]), "/health"))
    assert client.get("/health").status_code == 400


def test_redirects_and_missing_routes_pass_behind_a_middleware() -> None:
    """The router's own answers are seen on the scope, whatever layer is in front of it."""
    app = Starlette(routes=[Mount("/static", app=Starlette())], middleware=[Middleware(Restores)])
    client = TestClient(excluding(app, "/static", "/nope"), follow_redirects=False)
    assert client.get("/static").status_code == 307
    assert client.get("/nope").status_code == 404


def test_a_middlewares_own_answer_on_an_excluded_path_is_refused() -> None:
    """A layer that is not known may have read the path differently."""

    async def serves(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return PlainTextResponse("well")

    app = Starlette(middleware=[Middleware(BaseHTTPMiddleware, dispatch=serves)])
    assert TestClient(excluding(app, "/health")).get("/health").status_code == 401


class AnyOrder(APIRouter):
    """A router that takes another of its routes than the first that matches."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the last route."""
        await self.routes[-1].handle(scope, receive, send)


@pytest.mark.parametrize("depth", [1, 2])
def test_an_included_router_with_methods_of_its_own_opens_no_other(depth: int) -> None:
    """FastAPI asks the router as a whole, so that its routes do not say which of them runs."""
    RAN.clear()
    router: APIRouter = AnyOrder()
    router.get("/x")(public(lambda: "open"))
    router.get("/y")(lambda: RAN.append("protected"))
    for _ in range(depth - 1):
        outer = APIRouter()
        outer.include_router(router)
        router = outer
    app = FastAPI()
    app.include_router(router)
    assert TestClient(excluding(app)).get("/x").status_code == 401
    assert RAN == []


def _included() -> FastAPI:
    app, outer, inner = FastAPI(), APIRouter(prefix="/outer"), APIRouter(prefix="/inner")
    inner.get("/health/{name}")(lambda name: "well")
    outer.include_router(inner)
    app.include_router(outer)
    app.mount("/static/health", Starlette(routes=CATCH_ALL))
    app.mount("/plain", PlainTextResponse("well"))
    app.add_middleware(Restores)
    return app


@pytest.mark.parametrize(
    "path", ["/outer/inner/health/live", "/static/health/a/b", "/plain/health", "/outer/inner/none"]
)
def test_excluded_paths_pass_wherever_they_lead(path: str) -> None:
    """Into included routers and mounts, behind a middleware that changes nothing."""
    paths = ("/outer/inner/health", "/static/health", "/plain/health", "/outer/inner/none")
    answer = TestClient(excluding(_included(), *paths)).get(path)
    assert (answer.status_code, "well" in answer.text) == ((404, False) if path.endswith("none") else (200, True))
