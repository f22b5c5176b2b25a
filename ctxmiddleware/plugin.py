"""ContextPlugin: the one object users hold, and how it finds its place in an app."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, TypeVar, Unpack, cast, overload

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.routing import Mount

from .accessors import require
from .admin.guard import AdminGuard
from .core import PluginCore
from .errors import ConfigurationError
from .identity.base import Identify
from .middleware import UserContextMiddleware
from .model import UserContext
from .overriding import overriding
from .plugin_options import PluginOptions, arguments_from_env
from .preflight import Unreadable, checked_preflight
from .principal import Identity
from .refusal import OnRefusal
from .routing import checked_paths
from .sources.base import ContextSource
from .tracebacks import sheltered
from .whole_path import whole

T = TypeVar("T")
S = TypeVar("S")


class ContextPlugin(PluginCore[T]):
    """Resolves, caches and invalidates users' contexts; everything is validated here and nothing is opened yet.

    Its arguments are those of `PluginCore`, its base, which is all of it but its place in an app.
    """

    @overload
    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] = os.environ,
        *,
        source: ContextSource[S],
        identify: Identify | None = None,
        admin_guard: AdminGuard | None = None,
        name: str = "default",
        **options: Unpack[PluginOptions[S]],
    ) -> ContextPlugin[S]: ...

    @overload
    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] = os.environ,
        *,
        source: None = None,
        identify: Identify | None = None,
        admin_guard: AdminGuard | None = None,
        name: str = "default",
        **options: Unpack[PluginOptions[UserContext]],
    ) -> ContextPlugin[UserContext]: ...

    @classmethod
    @sheltered
    def from_env(
        cls,
        environ: Mapping[str, str] = os.environ,
        *,
        source: ContextSource[Any] | None = None,
        identify: Identify | None = None,
        admin_guard: AdminGuard | None = None,
        name: str = "default",
        **options: Unpack[PluginOptions[Any]],
    ) -> ContextPlugin[Any]:
        """Build the plugin from environment variables; `ctxmiddleware settings` lists them.

        In a run of pytest, whose plugin of ours is loaded, the environment may name no source.

        Args:
            environ: the variables.
            source: where contexts come from; None is Supabase as the variables describe it.
            identify: finds out who asks; None is `BearerJWT` where a variable says how tokens are verified, and else
                `ScopeUser()`.
            admin_guard: who may use the admin besides whoever has `CTX_ADMIN_TOKEN`.
            name: keeps several plugins apart.
            **options: further arguments of ContextPlugin, such as `context_type` and `policy`, each in the place of
                what the environment says.

        Raises:
            ConfigurationError: one or more variables cannot be; the message names them all.
        """
        arguments = arguments_from_env(
            environ, identify=identify, source=source, admin_guard=admin_guard, name=name, options=options
        )
        return cast("type[ContextPlugin[Any]]", cls)(**arguments)

    def install(
        self,
        app: Starlette,
        *,
        admin_path: str = "/api/admin/cache",
        required: bool = False,
        exclude: Iterable[str] = (),
        on_refusal: OnRefusal | None = None,
        preflight: Unreadable = "refuse",
    ) -> None:
        """Add the middleware to a Starlette or FastAPI app and mount the admin in it.

        The middleware added last runs first. Add after this: the middleware that signs users in, with `ScopeUser`, and
        CORSMiddleware, or browsers hide the refusals from pages of other origins (a warning at the start says so).

        Args:
            app: the app, before it has served anything.
            admin_path: where the admin is mounted, ahead of the app's own routes.
            required: refuse requests without a context.
            exclude: paths that nobody is identified on.
            on_refusal: shapes the refusals.
            preflight: what happens to CORS preflights where the app's routing cannot be read, `"refuse"` or `"pass"`.

        Raises:
            ConfigurationError: `admin_path` or `exclude` holds something that is not a path, or `preflight` another
                word.
            RuntimeError: the app has begun to serve, or has a plugin of the same name.
        """
        if any(self._is_of_this_name(each) for middleware in app.user_middleware for each in _arguments(middleware)):
            raise RuntimeError(
                f"the app has a ContextPlugin of the name {self.name!r} already: install each once, and give each a "
                "name of its own, ContextPlugin(name=...), or the contexts of one would be taken for the other's"
            )
        path = admin_path.rstrip("/")
        if not path.startswith("/"):
            raise ConfigurationError(
                f"admin_path was {admin_path!r}; it is a path below the root, such as /api/admin/cache"
            )
        excluded, preflights = checked_paths(exclude), checked_preflight(preflight)
        app.add_middleware(
            UserContextMiddleware,
            plugin=self,
            required=required,
            exclude=excluded,
            on_refusal=on_refusal,
            preflight=preflights,
        )
        # Ahead of the rest, or a route that takes every path would hide it.
        app.router.routes.insert(0, whole(Mount(path, app=self.admin, name="ctxmiddleware-admin")))

    def _is_of_this_name(self, other: object) -> bool:
        return isinstance(other, PluginCore) and other.name == self.name

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:  # noqa: ARG002 - the shape hosts call it in
        """Open the plugin for the life of an app, for hosts that run no lifespan through the middleware."""
        async with self:
            yield

    def override(self, context: T | None) -> AbstractContextManager[None]:
        """Give a context to the requests of a test that are made inside the block, as far as this plugin serves them.

        It holds for requests by Starlette's TestClient (also over websockets), by an ASGITransport, and for tasks that
        are started inside the block, and for no other request. No user is identified and no source called; `is_active`
        and excluded paths apply as ever.

        Args:
            context: of these requests; None makes them anonymous.

        Raises:
            TypeError: an address or an Identity was given in the place of a context.
        """
        if isinstance(context, str | Identity):
            raise TypeError(
                f"override was given {type(context).__name__}; it takes a context, UserContext(...), or None"
            )
        return overriding(context, self.scope_key, self)

    def get(self, connection: HTTPConnection) -> T:
        """Return the context on a request, typed as this plugin's contexts are.

        Args:
            connection: the request or websocket being answered.

        Raises:
            NotAuthenticated: the request is anonymous; answered as 401.
            NotPermitted: the user is signed in but unknown or not active; answered as 403.
            MiddlewareMissing: no UserContextMiddleware with this plugin has seen the request.
        """
        return cast("T", require(connection.scope, self.scope_key))


def _arguments(middleware: Middleware) -> tuple[object, ...]:
    return (*middleware.args, *middleware.kwargs.values())
