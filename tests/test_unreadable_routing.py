"""Routing that cannot be read to its end: it is never taken for routing that answers without a view."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from ctxmiddleware.destination import RouteUnreadable, match_of, redirect_of, routes_of, steps
from ctxmiddleware.known_layers import answers_errors_as_usual, routes_unchanged
from ctxmiddleware.litestar_routing import is_likewise_in_litestar
from ctxmiddleware.prediction import End, Prediction, predict
from ctxmiddleware.preflight import Answered, answered_by

from .asgi import http_scope, websocket_scope

CORS = Middleware(CORSMiddleware, allow_origins=["*"])
PREFLIGHT: dict[str, Any] = {
    "method": "OPTIONS",
    "headers": [(b"origin", b"https://app.example.com"), (b"access-control-request-method", b"GET")],
}


async def view(request: Request) -> Response:
    """Answer."""
    return PlainTextResponse("seen")


class Unknown:
    """A layer that is not known."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def in_itself() -> Starlette:
    """Return an app that is mounted in itself."""
    app = Starlette()
    app.mount("", app)
    return app


def around_itself() -> ASGIApp:
    """Return a known layer that has no end."""
    layer: Any = GZipMiddleware(view)  # type: ignore[arg-type]  # what is inside is replaced
    layer.app = layer
    return layer  # type: ignore[no-any-return]  # as above


def router(*middlewares: Any, routes: Any = None) -> Router:
    """Return a router with middlewares of its own and one view."""
    return Router(
        [Route("/seen", view)] if routes is None else routes, middleware=[Middleware(one) for one in middlewares]
    )


def behind(stack: Any) -> Router:
    """Return a router in whose middlewares its routes are not."""
    one = router()
    one.middleware_stack = stack
    return one


def with_frontend(folder: Path, *, mounted: bool = False) -> ASGIApp:
    """Return an app of FastAPI that serves files where no route matches."""
    app = FastAPI()
    app.frontend("/files", directory=folder)
    return Starlette(routes=[Mount("/in", app=app)]) if mounted else app


def failing() -> Starlette:
    """Return an app with a route that fails to say whether it takes a request."""

    class Fails(Route):
        def matches(self, scope: Scope) -> Any:
            raise ValueError("too many digits")

    return Starlette(routes=[Fails("/seen", view)])


class TestPreflights:
    """Which part of an app answers them."""

    @pytest.mark.parametrize(
        "app",
        [
            pytest.param(in_itself(), id="mounted in itself"),
            pytest.param(around_itself(), id="around itself"),
            pytest.param(router(Unknown), id="an unknown layer of a router"),
            pytest.param(behind(around_itself()), id="a router around itself"),
            pytest.param(router(routes=[object(), Route("/seen", view)]), id="a route of another framework"),
            pytest.param(failing(), id="a route that fails"),
        ],
    )
    def test_of_what_cannot_be_read_they_pass_nothing(self, app: ASGIApp) -> None:
        """Any client can send one."""
        assert answered_by(app, http_scope("/seen", **PREFLIGHT)) is None

    def test_files_that_are_tried_after_all_routes_are_not_passed_over(self, tmp_path: Path) -> None:
        """Where no route matches, they answer."""
        app = with_frontend(tmp_path)
        assert answered_by(app, http_scope("/files/x", **PREFLIGHT)) is None
        assert answered_by(FastAPI(), http_scope("/files/x", **PREFLIGHT)) == Answered("router")

    def test_a_routers_own_cors_answers_them(self) -> None:
        """Before its routes do."""
        app = Router([Route("/seen", view, methods=["OPTIONS"])], middleware=[Middleware(GZipMiddleware), CORS])
        assert answered_by(app, http_scope("/seen", **PREFLIGHT)) == Answered("cors")

    def test_known_layers_of_a_router_are_passed(self) -> None:
        """Its route answers 405."""
        assert answered_by(router(GZipMiddleware), http_scope("/seen", **PREFLIGHT)) == Answered("router", view)
        assert answered_by(router(GZipMiddleware, Unknown), http_scope("/seen", **PREFLIGHT)) is None


class TestPrediction:
    """Where a request is led."""

    def test_a_route_that_fails_predicts_no_end(self) -> None:
        """The request meets the failure; nothing is known to answer it before."""
        found = predict(failing(), http_scope("/seen"))
        assert found is not None
        assert (found.is_unchanged, found.end) == (False, End())

    def test_a_route_of_another_framework_predicts_no_end(self) -> None:
        """It may take the request; the layers before it are known all the same."""
        found = predict(router(routes=[object(), Route("/seen", view)]), http_scope("/seen"))
        assert found is not None
        assert (found.is_unchanged, found.end) == (True, End())

    def test_an_app_without_routes_that_can_be_read_predicts_no_end(self) -> None:
        """What it does with a request is its own."""
        app: Any = router()
        app.routes = (Route("/seen", view),)
        found = predict(app, http_scope("/seen"))
        assert found is not None
        assert (found.is_unchanged, found.end) == (False, End())

    @pytest.mark.parametrize(("mounted", "path"), [(False, "/files/x"), (True, "/in/files/x")])
    def test_files_that_are_tried_after_all_routes_predict_no_end(
        self, path: str, tmp_path: Path, *, mounted: bool
    ) -> None:
        """A 404 of the router is not known."""
        found = predict(with_frontend(tmp_path, mounted=mounted), http_scope(path))
        assert found is not None
        assert (found.is_unchanged, found.end) == (False, End())
        nowhere = predict(Starlette(), http_scope(path))
        assert nowhere is not None
        assert (nowhere.is_unchanged, nowhere.end.is_nowhere) == (True, True)

    def test_an_app_that_is_mounted_in_itself_ends_in_its_mount(self) -> None:
        """It is not followed for ever, and not taken for unchanged."""
        app = in_itself()
        found = predict(app, http_scope("/seen"))
        assert found is not None
        assert not found.is_unchanged
        assert found.end.endpoint is app

    def test_a_404_of_the_outermost_router_holds_where_it_was_reached(self) -> None:
        """And not where a layer routed a copy of the scope."""
        held = Prediction("", None, is_mounted=False, is_unchanged=False, end=End(is_nowhere=True))
        answer = {"type": "http.response.start", "status": 404}
        assert held.holds(answer, http_scope("/seen", router=object()))
        assert not held.holds(answer, http_scope("/seen"))
        assert not held.holds(answer, http_scope("/seen", router=object(), endpoint=view))


class TestLayers:
    """Which layers change nothing."""

    @pytest.mark.parametrize(
        ("app", "expected"),
        [
            (router(GZipMiddleware), True),
            (router(Unknown), False),
            (behind(around_itself()), False),
            (around_itself(), False),
            (Unknown(router()), False),
        ],
        ids=["known", "unknown in a router", "a router around itself", "around itself", "unknown"],
    )
    def test_routes_are_reached_unchanged_through_known_layers_only(self, app: ASGIApp, *, expected: bool) -> None:
        """A layer without an end reaches none."""
        assert routes_unchanged(app) is expected

    def test_errors_are_answered_as_usual_by_what_is_no_handler_of_errors(self) -> None:
        """A router has none."""
        assert answers_errors_as_usual(router())

    def test_an_attribute_that_raises_is_none(self) -> None:
        """A proxy object may, outside of a request."""

        class Proxy:
            @property
            def routes(self) -> object:
                raise RuntimeError("outside of a request")

        assert routes_of(Proxy()) is None


class TestRedirects:
    """To a path with a slash more or less."""

    def test_behind_a_route_of_another_framework_none_is_known(self) -> None:
        """It may take that path too."""
        app = router()
        assert redirect_of(app, app.routes, http_scope("/seen/")) is not None
        assert redirect_of(app, [object(), *app.routes], http_scope("/seen/")) is None

    @pytest.mark.parametrize(
        "scope",
        [http_scope("/"), http_scope("/root/", root_path="/root"), websocket_scope("/other/")],
        ids=["root", "mounted", "websocket"],
    )
    def test_neither_the_root_nor_a_websocket_has_one(self, scope: Scope) -> None:
        """Also where a route takes any path, as one of a host does."""

        class Takes(BaseRoute):
            def matches(self, scope: Scope) -> tuple[Match, Scope]:
                return Match.FULL, {}

        app = router(routes=[Takes()])
        assert redirect_of(app, app.routes, scope) is None
        assert redirect_of(app, app.routes, http_scope("/other/")) is not None

    def test_a_path_that_no_route_takes_either_way_has_none(self) -> None:
        """The router answers 404."""
        app = router()
        assert redirect_of(app, app.routes, http_scope("/other/")) is None

    def test_a_way_through_unreadable_routes_ends(self) -> None:
        """With the layer before them."""
        app = router(routes=[object(), Route("/seen", view)])
        assert list(steps(app, http_scope("/seen"))) == [app]
        with pytest.raises(RouteUnreadable):
            match_of(app.routes, http_scope("/seen"))


@pytest.mark.parametrize(
    ("template", "read", "expected"),
    [
        ("/open/seen", "/open/seen", True),
        ("/open/{name:str}", "/open/seen", True),
        ("/open/{name:str}/more", "/open/seen/more", True),
        ("/open/{rest:path}", "/open/a/b/c", True),
        ("/open/{name:str}", "/open", False),
        ("/open/{name:str}", "/open/seen/more", False),
        ("/open/{name:str}/more", "/open/seen/less", False),
        ("/secret/{name:str}", "/open/seen", False),
        ("/secret/{rest:path}", "/open/seen", False),
        ("/open/seen", "/open", False),
    ],
)
def test_the_template_of_litestars_route_is_that_of_the_path(template: str, read: str, *, expected: bool) -> None:
    """Where a layer has put the path back after the request was routed, it is another's, and is not excluded."""
    scope = {"route_handler": SimpleNamespace(is_mount=False), "path": read, "path_template": template}
    assert is_likewise_in_litestar(scope, read, ("/open",)) is expected
