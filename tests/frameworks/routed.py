"""One small app in each framework, with the same two addresses, for servers that are started with a root path.

`/secret` needs a context and `/health` with all below it is excluded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import re_path
from fastapi import FastAPI
from litestar import Litestar
from litestar import get as litestar_get
from quart import Quart
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ctxmiddleware import UserContextMiddleware
from ctxmiddleware.routing import relative_path

from ..people import plugin_of

SECRET = "the payroll"
WELL = "well"


def _django() -> Any:
    settings.configure(
        ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of a test", LOGGING_CONFIG=None, USE_TZ=True
    )
    django.setup()
    return get_asgi_application()


async def _django_secret(request: HttpRequest) -> HttpResponse:
    return HttpResponse(SECRET)


async def _django_health(request: HttpRequest) -> HttpResponse:
    return HttpResponse(WELL)


urlpatterns = [re_path(r"^secret/?$", _django_secret), re_path(r"^health(?:/.*)?$", _django_health)]


def _fastapi() -> ASGIApp:
    app = FastAPI()
    app.get("/secret", response_class=PlainTextResponse)(lambda: SECRET)
    app.get("/health", response_class=PlainTextResponse)(lambda: WELL)
    app.get("/health/{rest:path}", response_class=PlainTextResponse)(lambda: WELL)
    return app


def _litestar() -> Any:
    @litestar_get("/secret", media_type="text/plain")
    async def secret() -> str:
        return SECRET

    @litestar_get(["/health", "/health/{rest:path}"], media_type="text/plain")
    async def health() -> str:
        return WELL

    return Litestar([secret, health], openapi_config=None, logging_config=None)


def _quart() -> Any:
    app = Quart(__name__)

    @app.get("/secret")
    async def secret() -> str:
        return SECRET

    @app.get("/health")
    @app.get("/health/<path:rest>")
    async def health(rest: str = "") -> str:
        return WELL

    return app


def _starlette() -> ASGIApp:
    async def secret(request: Request) -> Response:
        return PlainTextResponse(SECRET)

    async def health(request: Request) -> Response:
        return PlainTextResponse(WELL)

    return Starlette(routes=[Route("/secret", secret), Route("/health", health), Route("/health/{rest:path}", health)])


def _plain() -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        path = relative_path(scope)
        body = SECRET if path == "/secret" else WELL if path.startswith("/health") else "not found"
        await PlainTextResponse(body, 404 if body == "not found" else 200)(scope, receive, send)

    return app


FRAMEWORKS: dict[str, Callable[[], Any]] = {
    "starlette": _starlette,
    "fastapi": _fastapi,
    "litestar": _litestar,
    "quart": _quart,
    "django": _django,
    "plain": _plain,
}


def application(framework: str) -> UserContextMiddleware:
    """Return the app of one framework in the middleware."""
    return UserContextMiddleware(FRAMEWORKS[framework](), plugin=plugin_of(), required=True, exclude=["/health"])


# Hypercorn evaluates a name in the module, so that each framework's app cannot have one of its own.
app = application(os.environ.get("FRAMEWORK", "plain"))
