"""The example app as its users would write it: who asks and what they work on is on every request."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from ctxmiddleware import BearerJWT, ContextPlugin, UserContextMiddleware, get_user_context

from .tokens import AUDIENCE


async def health(request: Request) -> Response:
    """Say that the process serves."""
    return PlainTextResponse("ok")


async def me(request: Request) -> Response:
    """Show who asks."""
    return Response(msgspec.json.encode(get_user_context(request)), media_type="application/json")


async def region(request: Request) -> Response:
    """Show one's own zones in a region; other people's regions are closed."""
    context = get_user_context(request)
    code = request.path_params["code"]
    if all(each.code != code for each in context.regions):
        raise HTTPException(403, "This region is not yours")
    zones = [zone for zone in context.zones if zone.region_code == code]
    return Response(msgspec.json.encode(zones), media_type="application/json")


def create_app(environ: Mapping[str, str] = os.environ) -> Starlette:
    """Build the app from environment variables: TOKEN_SECRET, and those of `ctxmiddleware settings`."""
    identify = BearerJWT(secret=environ["TOKEN_SECRET"], audience=AUDIENCE)
    plugin = ContextPlugin.from_env(environ, identify=identify)
    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/me", me),
            Route("/regions/{code}", region),
            Mount("/api/admin/cache", app=plugin.admin),
        ]
    )
    app.add_middleware(UserContextMiddleware, plugin=plugin)
    return app
