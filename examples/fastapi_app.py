"""A FastAPI app: contexts as a dependency, and nobody gets in without one.

Run it with the variables of `ctxmiddleware settings`, TOKEN_SECRET, and an ASGI server:
`uvicorn --factory examples.fastapi_app:create_app`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from starlette.middleware.authentication import AuthenticationMiddleware

from ctxmiddleware import ContextPlugin, ContextSource, UserContext, get_user_context

from .demo.tokens import BearerTokens

Context = Annotated[UserContext, Depends(get_user_context)]


def manager(context: Context) -> UserContext:
    """Let managers in only."""
    if context.employee.role != "manager":
        raise HTTPException(403, "For managers only")
    return context


def create_app(environ: Mapping[str, str] = os.environ, *, source: ContextSource[UserContext] | None = None) -> FastAPI:
    """Build the app.

    Args:
        environ: the variables it is configured by.
        source: where contexts come from; None is Supabase as the variables describe it.
    """
    app = FastAPI()

    @app.get("/health")
    async def health() -> str:
        return "ok"

    @app.get("/me")
    async def me(context: Context) -> dict[str, object]:
        return {"name": context.employee.full_name, "zones": [zone.name for zone in context.zones]}

    @app.get("/team")
    async def team(context: Annotated[UserContext, Depends(manager)]) -> list[str]:
        return [slot.code for slot in context.slots]

    plugin = ContextPlugin.from_env(environ, source=source)
    plugin.install(app, required=True, exclude=["/health"])
    # After install: the middleware added last runs first, and the context needs the user it finds.
    app.add_middleware(AuthenticationMiddleware, backend=BearerTokens(environ["TOKEN_SECRET"]))
    return app
