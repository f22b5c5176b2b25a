"""Never run: what type checkers must say of the public names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.types import Scope

from ctxmiddleware import (
    ContextPlugin,
    Identity,
    Loaded,
    Resolution,
    SupabaseSource,
    UserContext,
    UserContextMiddleware,
    ZoneSnapshot,
    get_user_context,
)
from ctxmiddleware.testing import StaticSource


class Badge:
    """Another context type."""

    number: int = 1


class Badges:
    """A source of it."""

    async def fetch(self, identity: Identity) -> Badge | Loaded[Badge] | None:
        """Return a badge, one way or the other."""
        return Loaded(Badge(), ttl=5) if identity.name else None


def with_zones(badge: Badge, snapshot: ZoneSnapshot) -> Badge:
    """Join zones into a badge."""
    return badge


async def identify(scope: Scope) -> Identity | None:
    """Identify asynchronously."""
    return Identity("a@example.com") if scope else None


async def reference(connection: HTTPConnection, ada: UserContext) -> None:
    """Without a context_type everything is a UserContext."""
    plugin = ContextPlugin(source=SupabaseSource("https://p.example", "sb_secret_x"), identify=identify)
    assert_type(plugin, ContextPlugin[UserContext])
    assert_type(ContextPlugin(source=StaticSource({"a@example.com": ada})), ContextPlugin[UserContext])
    assert_type(await plugin.resolve("a@example.com"), Resolution[UserContext])
    async for resolution in plugin.watch(Identity("a@example.com")):
        assert_type(resolution, Resolution[UserContext])
        assert_type(resolution.context, UserContext | None)
    assert_type(plugin.get(connection), UserContext)
    assert_type(get_user_context(connection), UserContext)
    assert_type(ContextPlugin.from_env(), ContextPlugin[UserContext])
    async with plugin as opened:
        assert_type(opened, ContextPlugin[UserContext])


def another(connection: HTTPConnection) -> None:
    """With a context_type everything is that type."""
    plugin = ContextPlugin(source=Badges(), context_type=Badge, zones_for=with_zones)
    assert_type(plugin, ContextPlugin[Badge])
    assert_type(plugin.get(connection), Badge)
    assert_type(plugin.watch("a@example.com"), AsyncIterator[Resolution[Badge]])
    app = Starlette()
    app.add_middleware(UserContextMiddleware, plugin=plugin, required=True, exclude=("/health",))
    UserContextMiddleware(app, plugin=plugin)
