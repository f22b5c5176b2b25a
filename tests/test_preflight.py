"""What becomes of OPTIONS: a browser's preflight passes, and is no way past a middleware that requires a context."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from ctxmiddleware import UserContextMiddleware

from .asgi import ask, http_scope, no_lifespan, websocket_scope
from .people import ADA, DOWN, NOBODY, plugin_of

ORIGIN = "https://app.example.com"
PREFLIGHT = {"origin": ORIGIN, "access-control-request-method": "GET"}
CORS = Middleware(CORSMiddleware, allow_origins=[ORIGIN], allow_credentials=True)


def identify(scope: Scope) -> None:
    """Fail: nobody is to be identified."""
    raise AssertionError("identified")


async def me(request: Request) -> Response:
    """Answer with what the request is said to be."""
    return JSONResponse(request.scope.get("user_context_refusal"))


class Blind:
    """An app that answers whatever it is asked, by whatever method."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse("done")(scope, receive, send)


class BlindClass:
    """An endpoint of Starlette's that is called for every method."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._answer = JSONResponse("done")(scope, receive, send)

    def __await__(self) -> object:
        return self._answer.__await__()


class Sees(HTTPEndpoint):
    """An endpoint that has a function for a method."""

    async def get(self, request: Request) -> Response:
        """Answer."""
        return JSONResponse("done")


def client_of(app: ASGIApp) -> TestClient:
    """Return a client of an app whose middleware requires a context and must identify nobody."""
    return TestClient(UserContextMiddleware(app, plugin=plugin_of(identify=identify), required=True))


def fastapi() -> ASGIApp:
    """Return a FastAPI app with its CORS inside of it."""
    app = FastAPI()
    app.get("/me")(lambda: "done")
    app.add_middleware(CORSMiddleware, allow_origins=[ORIGIN], allow_credentials=True)
    return app


ANSWERED: dict[str, Callable[[], ASGIApp]] = {
    "in the app": lambda: Starlette(routes=[Route("/me", me)], middleware=[CORS]),
    "around the app": lambda: CORSMiddleware(Starlette(routes=[Route("/me", me)]), allow_origins=[ORIGIN]),
    "before what takes every method": lambda: Starlette(routes=[Mount("/me", Blind())], middleware=[CORS]),
    "in a mounted app": lambda: Router([Mount("/me", Starlette(routes=[Route("/", me)], middleware=[CORS]))]),
    "fastapi": fastapi,
}


@pytest.mark.parametrize("build", ANSWERED.values(), ids=ANSWERED)
def test_a_preflight_is_answered_by_the_apps_own_cors(build: Callable[[], ASGIApp]) -> None:
    """Nobody is identified and nobody refused: the Fetch standard sends no credentials with it."""
    path = "/me/" if build is ANSWERED["in a mounted app"] else "/me"
    answer = client_of(build()).options(path, headers=PREFLIGHT)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)


PASSES: dict[str, tuple[ASGIApp, int]] = {
    "an options route": (Starlette(routes=[Route("/me", me, methods=["OPTIONS"])]), 200),
    "a route that looks at the method": (Starlette(routes=[Route("/me", me)]), 405),
    "an endpoint class": (Starlette(routes=[Route("/me", Sees)]), 405),
    "an app nobody can read": (Blind(), 200),
}


@pytest.mark.parametrize(("app", "status"), PASSES.values(), ids=PASSES)
def test_a_preflight_passes_to_what_looks_at_the_method(app: ASGIApp, status: int) -> None:
    """What it gets there is the application's answer."""
    assert client_of(app).options("/me", headers=PREFLIGHT).status_code == status


MISTAKEN: dict[str, ASGIApp] = {
    "a mounted app": Starlette(routes=[Mount("/me", Blind())]),
    "a class for every method": Starlette(routes=[Route("/me", BlindClass)]),
    "below": Starlette(routes=[Mount("/me", routes=[Route("/", BlindClass)])]),
}


@pytest.mark.parametrize("app", MISTAKEN.values(), ids=MISTAKEN)
def test_a_preflight_is_no_way_past_required(app: ASGIApp) -> None:
    """What would take it for any other request runs for nobody who is not identified."""
    client = TestClient(UserContextMiddleware(app, plugin=plugin_of(), required=True))
    path = "/me/" if app is MISTAKEN["below"] else "/me"
    assert client.options(path, headers=PREFLIGHT).status_code == 401
    assert client.options(path, headers={**PREFLIGHT, "x-user": NOBODY}).status_code == 403
    assert client.options(path, headers={**PREFLIGHT, "x-user": ADA}).json() == "done"


@pytest.mark.anyio
@pytest.mark.parametrize("without", ["origin", "access-control-request-method"])
async def test_a_plain_options_is_an_ordinary_request(without: str) -> None:
    """Without either header it is no preflight, and who asks is identified as ever."""
    headers = [(name.encode(), value.encode()) for name, value in PREFLIGHT.items() if name != without]
    app = UserContextMiddleware(no_lifespan, plugin=plugin_of(), required=True)
    for user, status in ((None, 401), (NOBODY, 403), (DOWN, 503), (ADA, 200)):
        scope = http_scope(user=user, method="OPTIONS")
        answer = await ask(app, {**scope, "headers": [*scope["headers"], *headers]})
        assert answer.status == status


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["GET", "POST", "options"])
async def test_a_preflights_headers_free_no_other_method(method: str) -> None:
    """Only OPTIONS asks for a preflight, in capitals, and a websocket never does."""
    headers = [(name.encode(), value.encode()) for name, value in PREFLIGHT.items()]
    app = UserContextMiddleware(no_lifespan, plugin=plugin_of(), required=True)
    assert (await ask(app, {**http_scope(method=method), "headers": headers})).status == 401
    assert (await ask(app, {**websocket_scope(), "method": "OPTIONS", "headers": headers})).kinds == ["websocket.close"]


@pytest.mark.anyio
async def test_a_preflight_has_no_context_even_where_somebody_is_named() -> None:
    """The application is told that nobody was asked, and the statistics count it so."""
    plugin = plugin_of(identify=identify)
    scope = http_scope(user=ADA, method="OPTIONS")
    scope["headers"] = ((name.encode(), value.encode()) for name, value in PREFLIGHT.items())
    assert (await ask(UserContextMiddleware(no_lifespan, plugin=plugin), scope)).json() is None
    assert scope["user_context_refusal"] == "excluded"
    assert plugin.stats().requests == {"excluded": 1}
