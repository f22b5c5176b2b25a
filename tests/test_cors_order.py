"""Whether an operator is warned where refusals lack the headers of CORS, and only there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from ctxmiddleware import UserContextMiddleware

from .people import DOWN, as_user, plugin_of

ORIGIN = "https://app.example.com"
BROWSER = {"origin": ORIGIN}
CORS = Middleware(CORSMiddleware, allow_origins=[ORIGIN])


async def me(request: Request) -> Response:
    """Answer."""
    return PlainTextResponse("me")


def installed(kind: type[Starlette], *, cors_first: bool) -> ASGIApp:
    """Return an app with both middlewares, in one order or the other."""
    app = kind(routes=[Route("/me", me)])
    for adds_cors in (cors_first, not cors_first):
        if adds_cors:
            app.add_middleware(CORSMiddleware, allow_origins=[ORIGIN])
        else:
            plugin_of().install(app, required=True)
    return app


def around(app: ASGIApp) -> ASGIApp:
    """Return an app in the middleware."""
    return UserContextMiddleware(app, plugin=plugin_of(), required=True)


INSIDE: dict[str, Callable[[], ASGIApp]] = {
    "starlette": lambda: installed(Starlette, cors_first=True),
    "fastapi": lambda: installed(FastAPI, cors_first=True),
    "a wrapped app": lambda: around(Starlette(routes=[Route("/me", me)], middleware=[CORS])),
    "around a wrapped app": lambda: around(CORSMiddleware(Starlette(routes=[Route("/me", me)]))),
    "a mounted app": lambda: around(Starlette(routes=[Mount("/me", routes=[Route("/", me)], middleware=[CORS])])),
}
OUTSIDE: dict[str, Callable[[], ASGIApp]] = {
    "starlette": lambda: installed(Starlette, cors_first=False),
    "fastapi": lambda: installed(FastAPI, cors_first=False),
    "around": lambda: CORSMiddleware(around(Starlette(routes=[Route("/me", me)])), allow_origins=[ORIGIN]),
}


def warnings(caplog: pytest.LogCaptureFixture) -> int:
    """Return how many warnings of the order there are."""
    return sum("CORSMiddleware is inside" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("case", INSIDE)
def test_cors_inside_is_warned_of_once_at_the_start(case: str, caplog: pytest.LogCaptureFixture) -> None:
    """A browser cannot read the refusals, and the message says what to do."""
    with TestClient(INSIDE[case]()) as client:
        assert warnings(caplog) == 1
        assert "access-control-allow-origin" not in client.get("/me", headers=BROWSER).headers
    assert warnings(caplog) == 1
    assert "Add CORSMiddleware after" in caplog.text


@pytest.mark.parametrize("case", INSIDE)
def test_without_a_lifespan_a_refused_request_of_a_browser_warns(case: str, caplog: pytest.LogCaptureFixture) -> None:
    """Other clients read every answer."""
    client = TestClient(INSIDE[case]())
    assert (client.get("/me").status_code, warnings(caplog)) == (401, 0)
    assert [client.get("/me", headers=BROWSER).status_code for _ in range(3)] == [401] * 3
    assert warnings(caplog) == 1


@pytest.mark.parametrize("case", OUTSIDE)
def test_cors_outside_adds_its_headers_to_refusals(case: str, caplog: pytest.LogCaptureFixture) -> None:
    """That is the order which the README shows, without a warning."""
    with TestClient(OUTSIDE[case]()) as client:
        for user, status in ((None, 401), (DOWN, 503)):
            answer = client.get("/me", headers=BROWSER | as_user(user))
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, ORIGIN)
    assert warnings(caplog) == 0


def test_where_no_context_is_required_the_first_refusal_warns(caplog: pytest.LogCaptureFixture) -> None:
    """Requests that are not refused get the app's own headers."""
    app = Starlette(routes=[Route("/me", me)], middleware=[CORS])
    plugin_of().install(app)
    with TestClient(app) as client:
        assert client.get("/me", headers=BROWSER).headers["access-control-allow-origin"] == ORIGIN
        assert warnings(caplog) == 0
        assert client.get("/me", headers=BROWSER | as_user(DOWN)).status_code == 503
    assert warnings(caplog) == 1


def test_an_app_in_itself_ends_the_search() -> None:
    """A mount may lead back to its app."""
    app = Starlette()
    for number in range(30):
        app.mount(f"/again{number}", app)
    with TestClient(around(app)) as client:
        assert client.get("/").status_code == 401


class Proxy:
    """An app whose attributes raise outside of a request, as proxy objects do."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("secret")(scope, receive, send)


@pytest.mark.parametrize("mounted", [False, True])
@pytest.mark.parametrize("path", ["/me/", "/health/"])
def test_an_app_whose_attributes_raise_is_refused_as_any_other(path: str, *, mounted: bool) -> None:
    """At the start, with a refusal of a page of another origin, as a preflight and on an excluded path."""
    routes = [Mount("/me", app=Proxy()), Mount("/health", app=Proxy())]
    app = UserContextMiddleware(
        Starlette(routes=routes) if mounted else Proxy(), plugin=plugin_of(), required=True, exclude=["/health"]
    )
    preflight = {**BROWSER, "access-control-request-method": "GET"}
    client = TestClient(app) if mounted else None
    with client or nullcontext():
        asked = client or TestClient(app)
        expected = 200 if path == "/health/" else 401
        assert [asked.get(path, headers=BROWSER).status_code for _ in range(2)] == [expected] * 2
        assert asked.options(path, headers=preflight).status_code == expected
