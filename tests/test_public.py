"""Whether nobody is refused on a public endpoint, and whether that frees nothing beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from ctxmiddleware import ConfigurationError, UserContextMiddleware, get_user_context, public

from .asgi import ask, http_scope
from .people import ADA, BROKEN, DOWN, GONE, NOBODY, as_user, plugin_of

Build = Callable[[], ASGIApp]


def _shown(request: Request) -> dict[str, object]:
    context = request.state.user_context
    refusal = request.scope.get("user_context_refusal")
    return {"email": None if context is None else context.email, "reason": refusal}


@public
async def welcome(request: Request) -> Response:
    """Show who asks, to everybody."""
    return JSONResponse(_shown(request))


async def private(request: Request) -> Response:
    """Show it to whoever has a context."""
    return JSONResponse({"secret": _shown(request)})


@public
class Welcome(HTTPEndpoint):
    """The same as a class."""

    async def get(self, request: Request) -> Response:
        """Show who asks."""
        return JSONResponse(_shown(request))


@public
async def live(websocket: WebSocket) -> None:
    """Open for everybody."""
    await websocket.accept()
    await websocket.close()


async def passes_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Do nothing, in a middleware of the widespread kind."""
    return await call_next(request)


def _fastapi() -> ASGIApp:
    app, router = FastAPI(), APIRouter()

    @router.get("/welcome")
    @public
    def page(request: Request) -> dict[str, object]:
        return _shown(request)

    @app.get("/private")
    def closed(context: Any = Depends(get_user_context)) -> str:  # noqa: B008 - as FastAPI has it
        return "secret"

    app.include_router(router)
    return app


PLACES: dict[str, Build] = {
    "function": lambda: Starlette(routes=[Route("/welcome", welcome), Route("/private", private)]),
    "class": lambda: Starlette(routes=[Route("/welcome", Welcome), Route("/private", private)]),
    "mounted": lambda: Starlette(
        routes=[Mount("/welcome", routes=[Route("/{rest:path}", welcome)]), Route("/private", private)]
    ),
    "behind middlewares": lambda: Starlette(
        routes=[Route("/welcome", welcome), Route("/private", private)],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=passes_on)],
    ),
    "fastapi": _fastapi,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("user", [None, NOBODY, GONE, DOWN, BROKEN])
def test_nobody_is_refused_on_a_public_endpoint(place: str, user: str | None) -> None:
    """Whatever becomes of the caller, and on no other endpoint."""
    client = TestClient(UserContextMiddleware(PLACES[place](), plugin=plugin_of(), required=True))
    path = "/welcome/" if place == "mounted" else "/welcome"
    answer = client.get(path, headers=as_user(user))
    assert (answer.status_code, answer.json()) == (200, {"email": None, "reason": "excluded"})
    answer = client.get("/private", headers=as_user(user))
    assert answer.status_code >= 400
    assert "secret" not in answer.text


@pytest.mark.parametrize("place", PLACES)
def test_whoever_is_known_has_his_context_there(place: str) -> None:
    """A page for everybody may greet those who are signed in."""
    client = TestClient(UserContextMiddleware(PLACES[place](), plugin=plugin_of(), required=True))
    path = "/welcome/" if place == "mounted" else "/welcome"
    assert client.get(path, headers=as_user(ADA)).json() == {"email": ADA, "reason": None}


def test_a_public_websocket_is_open_for_everybody() -> None:
    """And one that is not marked is not."""

    async def closed(websocket: WebSocket) -> None:
        await websocket.accept()

    app = Starlette(routes=[WebSocketRoute("/live", live), WebSocketRoute("/closed", closed)])
    client = TestClient(UserContextMiddleware(app, plugin=plugin_of(), required=True))
    with client.websocket_connect("/live"):
        pass
    with pytest.raises(WebSocketDenialResponse), client.websocket_connect("/closed"):
        pass


@pytest.mark.anyio
async def test_a_path_that_is_rewritten_inside_leads_nobody_past_the_refusal() -> None:
    """Asking for the public endpoint and being led elsewhere is refused: nothing of what was reached comes out."""

    class Rewriting:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            scope["path"] = "/private"
            await self.app(scope, receive, send)

    app = UserContextMiddleware(Rewriting(PLACES["function"]()), plugin=plugin_of(), required=True)
    for user, status in ((None, 401), (DOWN, 503)):
        answer = await ask(app, http_scope("/welcome", user=user))
        assert (answer.status, b"secret" in answer.body) == (status, False)


def test_a_route_that_shadows_a_public_one_is_not_freed() -> None:
    """The first that matches decides."""
    app = Starlette(routes=[Route("/{rest:path}", private), Route("/welcome", welcome)])
    client = TestClient(UserContextMiddleware(app, plugin=plugin_of(), required=True))
    assert client.get("/welcome").status_code == 401


def test_what_cannot_be_marked_is_refused_at_once() -> None:
    """And the way out is named."""
    with pytest.raises(ConfigurationError, match=r"method, which cannot be marked; name its path in `exclude`"):
        public(PLACES.get)
    assert public(partial(welcome)) is not None


@pytest.mark.anyio
async def test_what_was_refused_stays_refused() -> None:
    """An app that answers before it comes to the public endpoint has answered somebody it must not."""

    class Hasty:
        def __init__(self, app: Starlette) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await JSONResponse("secret")(scope, receive, send)
            await self.app(scope, receive, send)

    app = UserContextMiddleware(
        Hasty(Starlette(routes=[Route("/welcome", welcome)])), plugin=plugin_of(), required=True
    )
    answer = await ask(app, http_scope("/welcome"))
    assert answer.status == 401
    assert answer.kinds == ["http.response.start", "http.response.body"]
    assert b"secret" not in answer.body


@public
class Landing(HTTPEndpoint):
    """A page for all visitors."""

    async def get(self, request: Request) -> Response:
        """Answer."""
        return PlainTextResponse("welcome")


class Account(Landing):
    """A page that was derived from it."""

    async def get(self, request: Request) -> Response:
        """Answer."""
        return PlainTextResponse("secret")


@functools.wraps(welcome)
async def wrapping(request: Request) -> Response:
    """Answer in the place of a public endpoint."""
    return PlainTextResponse("secret")


def test_a_mark_is_of_the_object_itself() -> None:
    """A class that is derived from a public one, and a function that wraps one, are not public."""
    routes = [Route("/landing", Landing), Route("/account", Account), Route("/wrapping", wrapping)]
    client = TestClient(UserContextMiddleware(Starlette(routes=routes), plugin=plugin_of(), required=True))
    assert client.get("/landing").text == "welcome"
    for path in ("/account", "/wrapping"):
        answer = client.get(path)
        assert (answer.status_code, "secret" in answer.text) == (401, False)


def test_a_method_of_an_object_may_be_marked() -> None:
    """By its function, which is the same for every object."""

    class Pages:
        @public
        async def open(self, request: Request) -> Response:
            return PlainTextResponse("welcome")

        async def closed(self, request: Request) -> Response:
            return PlainTextResponse("secret")

    pages = Pages()
    app = Starlette(routes=[Route("/open", pages.open), Route("/closed", pages.closed)])
    client = TestClient(UserContextMiddleware(app, plugin=plugin_of(), required=True))
    assert client.get("/open").text == "welcome"
    assert client.get("/closed").status_code == 401


@public
async def page(request: Request) -> Response:
    """Answer in the same way with and without the middleware."""
    return PlainTextResponse("welcome")


def _routing() -> ASGIApp:
    below = Mount("/below", routes=[Route("/welcome", page), Route("/private", private)])
    return Starlette(
        routes=[
            Route("/welcome", page),
            Route("/slash/", page),
            Route("/class/", Landing),
            Route("/private", private),
            Route("/private-slash/", private),
            below,
        ]
    )


def _fastapi_routing() -> ASGIApp:
    app, router = FastAPI(), APIRouter(prefix="/below")
    targets: tuple[FastAPI | APIRouter, ...] = (app, router)
    for target in targets:
        target.get("/welcome")(public(lambda: "welcome"))
        target.get("/private")(lambda: "secret")
    app.get("/slash/")(public(lambda: "welcome"))
    app.get("/class/")(public(lambda: "welcome"))
    app.get("/private-slash/")(lambda: "secret")
    app.include_router(router)
    return app


ROUTERS: dict[str, Build] = {"starlette": _routing, "fastapi": _fastapi_routing}
PUBLIC = (
    "GET /welcome/", "GET /welcome/?next=/a%2Fb", "HEAD /welcome", "HEAD /welcome/", "POST /welcome", "POST /welcome/",
    "OPTIONS /welcome", "GET /slash", "HEAD /slash/", "GET /class", "POST /class", "POST /class/",
    "GET /below/welcome/", "HEAD /below/welcome", "POST /below/welcome",
)  # fmt: skip


def _asked(app: ASGIApp, request: str, root: str) -> tuple[int, bytes, str | None, str | None]:
    method, path = request.split()
    answer = TestClient(app, root_path=root, follow_redirects=False).request(method, f"{root}{path}")
    return answer.status_code, answer.content, answer.headers.get("location"), answer.headers.get("allow")


@pytest.mark.parametrize("root", ["", "/api"])
@pytest.mark.parametrize("request_line", PUBLIC)
@pytest.mark.parametrize("framework", ROUTERS)
def test_the_routers_own_answers_are_those_without_the_middleware(framework: str, request_line: str, root: str) -> None:
    """A redirect to a public endpoint, and a method that it does not have."""
    expected = _asked(ROUTERS[framework](), request_line, root)
    assert expected[0] in (200, 307, 405)
    app = UserContextMiddleware(ROUTERS[framework](), plugin=plugin_of(), required=True)
    found = _asked(app, request_line, root)
    if expected[0] == 200:
        assert found[0] == 200
    else:
        assert found == expected


@pytest.mark.parametrize(
    "request_line", ["GET /private/", "POST /private", "GET /private-slash", "GET /below/private/"]
)
@pytest.mark.parametrize("framework", ROUTERS)
def test_the_routers_answers_on_other_endpoints_say_nothing(framework: str, request_line: str) -> None:
    """Without credentials it is not to be seen which addresses and methods there are."""
    app = UserContextMiddleware(ROUTERS[framework](), plugin=plugin_of(), required=True)
    assert _asked(app, request_line, "")[0] == _asked(app, "GET /nope", "")[0] == 401


def test_a_redirect_to_the_admin_passes() -> None:
    """The admin guards itself, and shows no more than that it is there."""
    plugin = plugin_of()
    app = Starlette()
    plugin.install(app, required=True)
    answer = TestClient(app, follow_redirects=False).get("/api/admin/cache")
    assert (answer.status_code, answer.headers["location"]) == (307, "http://testserver/api/admin/cache/")


def test_another_redirect_is_not_taken_for_the_routers() -> None:
    """A middleware inside that leads the request elsewhere answers with nothing of what was reached."""

    async def secret(request: Request) -> Response:
        return RedirectResponse("/secret-place")

    inner = Starlette(routes=[Route("/welcome", page), Route("/secret", secret)])

    class Rewriting:
        app = inner

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await inner({**scope, "path": "/secret"}, receive, send)

    client = TestClient(UserContextMiddleware(Rewriting(), plugin=plugin_of(), required=True), follow_redirects=False)
    answer = client.get("/welcome/")
    assert (answer.status_code, answer.headers.get("location")) == (401, None)


def test_a_method_of_another_route_of_the_path_needs_a_context() -> None:
    """Only where no route takes the method is the answer the router's own."""
    routes = [Route("/both", page), Route("/both", private, methods=["POST"])]
    app = UserContextMiddleware(Starlette(routes=routes), plugin=plugin_of(), required=True)
    assert [_asked(app, f"{method} /both", "")[0] for method in ("GET", "POST", "DELETE")] == [200, 401, 405]


class Pages:
    """Endpoints that are methods of a class."""

    @public
    @classmethod
    async def marked_above(cls, request: Request) -> Response:
        """Greet."""
        return PlainTextResponse("welcome")

    @classmethod
    @public
    async def marked_below(cls, request: Request) -> Response:
        """Greet."""
        return PlainTextResponse("welcome")

    @public
    @staticmethod
    async def static_marked_above(request: Request) -> Response:
        """Greet."""
        return PlainTextResponse("welcome")

    @classmethod
    async def private(cls, request: Request) -> Response:
        """Answer for users with a context only."""
        return PlainTextResponse("private")


@pytest.mark.parametrize("name", ["marked_above", "marked_below", "static_marked_above", "private"])
def test_a_class_or_static_method_is_public_wherever_it_is_marked(name: str) -> None:
    """Above `@classmethod` the mark is the function's too, which is what the route calls."""
    app = Starlette(routes=[Route("/", getattr(Pages, name))])
    client = TestClient(UserContextMiddleware(app, plugin=plugin_of(), required=True))
    assert client.get("/").status_code == (401 if name == "private" else 200)


async def _greet(request: Request, word: str = "welcome") -> Response:
    return PlainTextResponse(word)


@pytest.mark.parametrize(
    "descriptor",
    [
        functools.partialmethod(_greet, word="hello"),
        property(_greet),
        functools.singledispatchmethod(_greet),
        classmethod(property(_greet)),  # type: ignore[arg-type]  # the fault tested
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_mark_that_would_be_without_effect_is_refused(descriptor: Any) -> None:
    """A descriptor called through another object would lose the mark; the error names the way out."""
    with pytest.raises(ConfigurationError, match="put it below, on the function itself"):
        public(descriptor)
