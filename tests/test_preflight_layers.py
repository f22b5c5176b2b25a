"""Preflights of an app in whose layers something answers, rewrites or overrides: none reaches a view without a user."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from ctxmiddleware import UserContextMiddleware

from .people import plugin_of

SECRET = "the payroll"
PREFLIGHT = {"origin": "https://evil.example.com", "access-control-request-method": "GET"}
CORS = Middleware(CORSMiddleware, allow_origins=["*"])
RAN: list[str] = []


async def payroll(request: Request) -> Response:
    """Answer with what is not for all."""
    RAN.append(request.method)
    return PlainTextResponse(SECRET)


async def blind(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer any method."""
    RAN.append(scope["method"])
    await PlainTextResponse(SECRET)(scope, receive, send)


class Layer:
    """A middleware that says what is inside of it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Answers(Layer):
    """A middleware that serves one path by itself."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (blind if scope["path"] == "/payroll" else self.app)(scope, receive, send)


class Overrides(Layer):
    """A middleware that takes the method from a header."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["method"] = "GET"
        await self.app(scope, receive, send)


class Copies(Layer):
    """A middleware that routes a copy of the scope by another path."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "path": "/other/"}, receive, send)


class CorsOfSomePaths(CORSMiddleware):
    """A CORSMiddleware that passes the preflights of one path on."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on or answer."""
        passes = scope["path"] == "/payroll"
        await (self.app(scope, receive, send) if passes else super().__call__(scope, receive, send))


class OwnRouter(Router):
    """A router that does not try its routes."""

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await blind(scope, receive, send)


class OwnRoute(Route):
    """A route that does not compare the method when it is called."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await blind(scope, receive, send)


class OwnApp(Starlette):
    """An app that does not call its middlewares."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await blind(scope, receive, send)


class Alias(HTTPEndpoint):
    """An endpoint class that answers OPTIONS as GET."""

    async def get(self, request: Request) -> Response:
        """Answer."""
        return await payroll(request)

    options = get


async def _serves_payroll(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await payroll(request) if request.url.path == "/payroll" else await call_next(request)


def _fastapi_route() -> ASGIApp:
    app = FastAPI()

    @app.api_route("/payroll", methods=["GET", "OPTIONS"])
    def view() -> str:
        RAN.append("GET")
        return SECRET

    return app


def _fastapi_middleware() -> ASGIApp:
    app = FastAPI()
    app.middleware("http")(_serves_payroll)
    return app


def _starlette(*middleware: Middleware) -> Callable[[], ASGIApp]:
    return lambda: Starlette(routes=[Route("/payroll", payroll), Mount("/other", blind)], middleware=middleware)


OPEN: dict[str, Callable[[], ASGIApp]] = {
    "a view that lists OPTIONS": lambda: Starlette(routes=[Route("/payroll", payroll, methods=["GET", "OPTIONS"])]),
    "a FastAPI view that lists OPTIONS": _fastapi_route,
    "an endpoint class whose options is get": lambda: Starlette(routes=[Route("/payroll", Alias)]),
    "a middleware of FastAPI that answers": _fastapi_middleware,
    "a middleware that answers": _starlette(Middleware(Answers)),
    "a middleware that answers before the app's cors": _starlette(Middleware(Answers), CORS),
    "a method override": _starlette(Middleware(Overrides)),
    "a method override before the app's cors": _starlette(Middleware(Overrides), CORS),
    "a copy of the scope": _starlette(Middleware(Copies)),
    "a function as middleware": _starlette(Middleware(BaseHTTPMiddleware, dispatch=_serves_payroll)),
    "a subclass of CORSMiddleware": lambda: CorsOfSomePaths(blind, allow_origins=["*"]),
    "a subclass of Router": lambda: OwnRouter([Route("/other", payroll)]),
    "a subclass of Route": lambda: Starlette(routes=[OwnRoute("/payroll", payroll)]),
    "a subclass of Starlette": OwnApp,
}


def client_of(app: ASGIApp, **options: Any) -> TestClient:
    """Return a client of an app that requires a context."""
    RAN.clear()
    return TestClient(UserContextMiddleware(app, plugin=plugin_of(), required=True, **options))


@pytest.mark.parametrize("case", OPEN)
def test_a_preflight_reaches_no_view(case: str) -> None:
    """It is refused as any other request without credentials, and nothing has run."""
    answer = client_of(OPEN[case]()).options("/payroll", headers=PREFLIGHT)
    assert (answer.status_code, SECRET in answer.text, RAN) == (401, False, [])


@pytest.mark.parametrize("case", OPEN)
def test_preflight_pass_passes_them(case: str) -> None:
    """The app is then expected to distinguish a preflight from another request."""
    assert client_of(OPEN[case](), preflight="pass").options("/payroll", headers=PREFLIGHT).status_code != 401


@pytest.mark.parametrize("path", ["/payroll", "/none"])
@pytest.mark.parametrize("key", [404, 405, HTTPException, Exception])
@pytest.mark.parametrize("framework", [Starlette, FastAPI])
def test_a_handler_of_errors_is_a_view_too(framework: type[Starlette], key: Any, path: str) -> None:
    """One that serves a 404 from elsewhere, for instance, answers no preflight without a user."""

    async def handler(request: Request, error: Exception) -> Response:
        return await payroll(request)

    app = framework(routes=[Route("/payroll", payroll)], exception_handlers={key: handler})
    expected = (404 if path == "/none" else 405) if key is Exception else 401
    assert (client_of(app).options(path, headers=PREFLIGHT).status_code, RAN) == (expected, [])
    app = framework(routes=[Route("/payroll", payroll)], exception_handlers={key: handler}, middleware=[CORS])
    assert client_of(app).options(path, headers=PREFLIGHT).text == "OK"


KNOWN = (
    Middleware(TrustedHostMiddleware, allowed_hosts=["*"]),
    Middleware(GZipMiddleware),
    Middleware(SessionMiddleware, secret_key="of a test"),
)


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
def test_known_layers_are_read_through(framework: type[Starlette]) -> None:
    """To the app's CORSMiddleware, and to a router that compares the method."""
    with_cors = framework(routes=[Route("/payroll", payroll)], middleware=[*KNOWN, CORS])
    assert client_of(with_cors).options("/payroll", headers=PREFLIGHT).text == "OK"
    without = framework(routes=[Route("/payroll", payroll)], middleware=KNOWN)
    assert client_of(without).options("/payroll", headers=PREFLIGHT).status_code == 405


def test_a_disallowed_origin_gets_the_answer_of_the_apps_cors() -> None:
    """It carries the allowed methods, too."""
    app = Starlette(middleware=[Middleware(CORSMiddleware, allow_origins=["https://app.example.com"])])
    assert client_of(app).options("/", headers=PREFLIGHT).text == "Disallowed CORS origin"


def test_a_replaced_call_makes_an_app_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instrumentation that replaces a method may do anything, whatever names `functools.wraps` has copied."""
    original = Router.app

    @functools.wraps(original)
    async def instrumented(self: Router, scope: Scope, receive: Receive, send: Send) -> None:
        await original(self, scope, receive, send)

    monkeypatch.setattr(Router, "app", instrumented)
    assert client_of(_starlette()()).options("/payroll", headers=PREFLIGHT).status_code == 401


def test_a_path_that_no_route_can_read_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """A number of thousands of digits raises in the route: it is no fault of the app, and one line a minute."""
    client = client_of(Starlette(routes=[Route("/items/{id:int}", payroll)]))
    path = f"/items/{'9' * 5000}"
    for _ in range(20):
        assert client.options(path, headers=PREFLIGHT).status_code == 401
        assert client.get(path).status_code == 401
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) <= 1
    assert all(record.exc_info is None for record in errors)


def test_a_route_whose_handle_was_replaced_is_unreadable() -> None:
    """It need not compare the method."""
    route: Any = Route("/payroll", payroll)
    route.handle = blind
    answer = client_of(Starlette(routes=[route])).options("/payroll", headers=PREFLIGHT)
    assert (answer.status_code, RAN) == (401, [])
