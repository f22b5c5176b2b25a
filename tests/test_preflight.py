"""What becomes of OPTIONS: a browser's preflight passes, and is no way past a middleware that requires a context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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

from ctxmiddleware import ConfigurationError, UserContextMiddleware

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


class OwnDispatch(HTTPEndpoint):
    """An endpoint class that does not compare the method."""

    async def dispatch(self) -> None:
        """Answer."""
        await JSONResponse("done")(self.scope, self.receive, self.send)


class Silent:
    """A middleware that does not say what is inside of it, and answers by itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._inner = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse("done")(scope, receive, send)


class Says:
    """A middleware that says what is inside of it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Foreign(Blind):
    """An app with routes that are not Starlette's."""

    routes = [object()]  # noqa: RUF012 - as another framework has them


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
    "a route that looks at the method": (Starlette(routes=[Route("/me", me)]), 405),
    "an endpoint class": (Starlette(routes=[Route("/me", Sees)]), 405),
    "no route": (Starlette(routes=[Route("/other", me)]), 404),
}


@pytest.mark.parametrize(("app", "status"), PASSES.values(), ids=PASSES)
def test_a_preflight_passes_to_what_looks_at_the_method(app: ASGIApp, status: int) -> None:
    """What it gets there is the application's answer."""
    assert client_of(app).options("/me", headers=PREFLIGHT).status_code == status


def default() -> ASGIApp:
    """Return a Starlette app whose router has an app for all that no route matches."""
    app = Starlette(routes=[Route("/other", me)])
    app.router.default = Blind()
    return app


UNREADABLE: dict[str, Callable[[], ASGIApp]] = {
    "a plain app": Blind,
    "a mounted app": lambda: Starlette(routes=[Mount("/me", Blind())]),
    "a class for every method": lambda: Starlette(routes=[Route("/me", BlindClass)]),
    "an endpoint class with a dispatch of its own": lambda: Starlette(routes=[Route("/me", OwnDispatch)]),
    "below a mount": lambda: Starlette(routes=[Mount("/me", routes=[Route("/", BlindClass)])]),
    "the default of a router": default,
    "the default of a mounted router": lambda: Starlette(routes=[Mount("/me", Router(default=Blind()))]),
    "a middleware without .app around the app": lambda: Silent(Starlette(routes=[Route("/other", me)])),
    "a middleware without .app in the app": lambda: Starlette(
        routes=[Route("/other", me)], middleware=[Middleware(Silent)]
    ),
    "a middleware without .app before the app's cors": lambda: Starlette(
        routes=[Route("/me", me)], middleware=[Middleware(Silent), CORS]
    ),
    "a middleware without .app in a router": lambda: Router([Route("/me", me)], middleware=[Middleware(Silent)]),
    "a middleware without .app in a mount": lambda: Router(
        [Mount("/me", routes=[Route("/", me)], middleware=[Middleware(Silent)])]
    ),
    "a middleware without .app before an endpoint class": lambda: Router(
        [Route("/me", Sees, middleware=[Middleware(Silent)])]
    ),
    "another framework's routes": lambda: Foreign(),
}


def path_of(case: str) -> str:
    """Return the path that is asked for."""
    return "/me/" if "mount" in case and case != "a mounted app" else "/me"


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_preflight_of_an_unreadable_app_is_an_ordinary_request(case: str) -> None:
    """It may run the view of another method, which any request with two headers would reach."""
    client = TestClient(UserContextMiddleware(UNREADABLE[case](), plugin=plugin_of(), required=True))
    path = path_of(case)
    answer = client.options(path, headers=PREFLIGHT)
    assert (answer.status_code, answer.json()["reason"]) == (401, "anonymous")
    assert client.options(path, headers={**PREFLIGHT, "x-user": NOBODY}).status_code == 403
    assert client.options(path, headers={**PREFLIGHT, "x-user": ADA}).json() == "done"


@pytest.mark.parametrize("case", UNREADABLE)
def test_preflights_of_an_unreadable_app_pass_where_that_is_asked_for(case: str) -> None:
    """With `preflight="pass"` they reach the app, and no user is identified."""
    plugin = plugin_of(identify=identify)
    client = TestClient(UserContextMiddleware(UNREADABLE[case](), plugin=plugin, required=True, preflight="pass"))
    assert client.options(path_of(case), headers=PREFLIGHT).json() == "done"
    assert client.options(path_of(case)).status_code == 500


class Rewriting(Says):
    """A middleware that leads requests to another path than they ask for."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["path"] = "/payroll"
        await self.app(scope, receive, send)


def test_a_preflight_that_is_led_elsewhere_is_refused() -> None:
    """A middleware that is not known may rewrite the path to one that is served by an unreadable app."""
    app = Starlette(routes=[Route("/me", me), Mount("/payroll", Blind())], middleware=[Middleware(Rewriting)])
    client = TestClient(UserContextMiddleware(app, plugin=plugin_of(), required=True))
    answer = client.options("/me", headers=PREFLIGHT)
    assert (answer.status_code, "done" in answer.text) == (401, False)


@pytest.mark.parametrize("root", ["", "/api"])
def test_a_preflight_to_a_route_below_a_mount_passes(root: str) -> None:
    """A mount moves what it has matched into the root path, which is no other reading."""
    app = Starlette(routes=[Mount("/below", routes=[Mount("/deep", routes=[Route("/me", me)])])])
    middleware = UserContextMiddleware(app, plugin=plugin_of(), required=True)
    for each, before in ((middleware, ""), (Starlette(routes=[Mount("/outer", middleware)]), "/outer")):
        client = TestClient(each, root_path=root)
        assert client.options(f"{root}{before}/below/deep/me", headers=PREFLIGHT).status_code == 405


def test_preflights_pass_where_no_context_is_required() -> None:
    """An anonymous request would reach the app as well."""
    client = TestClient(UserContextMiddleware(Blind(), plugin=plugin_of(identify=identify)))
    assert client.options("/me", headers=PREFLIGHT).json() == "done"


def test_a_cors_middleware_outside_answers_the_preflights_of_any_app() -> None:
    """As the README shows it: neither ours nor the app receives them, and refusals carry its headers."""
    inner = UserContextMiddleware(Blind(), plugin=plugin_of(), required=True)
    client = TestClient(CORSMiddleware(inner, allow_origins=[ORIGIN]))
    answer = client.options("/me", headers=PREFLIGHT)
    assert (answer.text, answer.headers["access-control-allow-origin"]) == ("OK", ORIGIN)
    refused = client.get("/me", headers={"origin": ORIGIN})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)


@pytest.mark.parametrize("value", ["allow", "PASS", "", None, True, []])
def test_another_word_for_preflight_is_refused_at_construction(value: Any) -> None:
    """By the middleware and by `install`, whose middleware would be built with the first request only."""
    message = "preflight was .*; allowed are 'refuse'.* and 'pass'"
    with pytest.raises(ConfigurationError, match=message):
        UserContextMiddleware(Blind(), plugin=plugin_of(), preflight=value)
    app = Starlette()
    with pytest.raises(ConfigurationError, match=message):
        plugin_of().install(app, preflight=value)
    assert not app.user_middleware


@pytest.mark.parametrize(("value", "status"), [("refuse", 401), ("pass", 200)])
def test_install_passes_it_on(value: Any, status: int) -> None:
    """To the middleware that it adds."""
    app = Starlette(routes=[Mount("/me", Blind())])
    plugin_of().install(app, required=True, preflight=value)
    assert TestClient(app).options("/me", headers=PREFLIGHT).status_code == status


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
