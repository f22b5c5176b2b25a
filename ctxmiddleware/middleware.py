"""The pure ASGI middleware: identify, resolve, bind, and call the app."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar, Token
from functools import partial
from inspect import isawaitable
from typing import Any, Final

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .accessors import context_variable, scope_key
from .causes import cause_of, denial_of
from .core import PluginCore
from .cors_order import CorsOrder
from .destination import Redirect
from .errors import ConfigurationError
from .exemption import Exemptions
from .failure_log import Seldom
from .freed import FREED_KEY, Gate
from .identity.rejection import take_rejection
from .lifespan import FailingResources, LifespanRun
from .plugin_options import arguments_from_env
from .preflight import Unreadable
from .refusal import FAILED, Denial, OnRefusal, Reason, denial_for, denial_key, denial_on, refuse
from .refusals import WITHHELD, Cause, Counted
from .request_context import context_of
from .routing import Freed, is_public, leads_to

logger = logging.getLogger("ctxmiddleware.middleware")


class UserContextMiddleware:
    """Attaches the signed-in user's resolved context to every http and websocket scope.

    The context is written to `scope["user_context"]` and `request.state.user_context` on every request, None where
    there is none; `scope["user_context_refusal"]` then says why. CORSMiddleware belongs outside of it.

    Args:
        app: the ASGI app inside.
        plugin: what resolves; None reads the environment with `ContextPlugin.from_env()`.
        required: refuse requests without a context, 401 for anonymous ones and 403 for unknown or inactive users.
        exclude: paths that nobody is identified on, each with all that lies below it; `public` marks single endpoints.
        on_refusal: called with the connection and the reason of each refusal; the response it returns is sent instead.
        preflight: what happens with `required` to CORS preflights, which carry no credentials, of an app whose routing
            cannot be read (Django, plain ASGI, middlewares of one's own): `"refuse"` them as any other request
            without credentials, or `"pass"` them to the app. Elsewhere those pass that run no view.

    Raises:
        ConfigurationError: `exclude` holds something that is not a path, or `preflight` another word.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        plugin: PluginCore[Any] | None = None,
        required: bool = False,
        exclude: Iterable[str] = (),
        on_refusal: OnRefusal | None = None,
        preflight: Unreadable = "refuse",
    ) -> None:
        self.app = app
        self._required = required
        self._exemptions = Exemptions(app, exclude, preflight, required=required)
        self._cors_order = CorsOrder(app)
        self._on_refusal = on_refusal
        self._seldom = Seldom()
        self._plugin: PluginCore[Any] | ConfigurationError = _from_environment() if plugin is None else plugin
        key = scope_key("default") if isinstance(self._plugin, ConfigurationError) else self._plugin.scope_key
        self._key: Final = key
        self._refusal_key: Final = f"{key}_refusal"
        self._plugin_key: Final = f"{key}_plugin"
        self._counted_key: Final = f"{key}_counted"
        self._denial_key: Final = denial_key(key)
        self._variable: Final = context_variable(key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind == "lifespan":
            if self._required:
                self._cors_order.check()
            await LifespanRun(self.app, self._resources(), receive, send).run(scope)
        elif kind not in ("http", "websocket"):
            if self._required:
                raise ValueError(
                    f"a scope of type {kind!r} has no context, which is required: serve it outside of ours"
                )
            await self.app(scope, receive, send)
        elif isinstance(self._plugin, ConfigurationError):
            await self._serve_broken(self._plugin, scope, receive, send)
        elif self._is_resolved(self._plugin, scope):
            await self._pass_through(scope, receive, send)
        else:
            await self._serve(self._plugin, scope, receive, send)

    async def _serve(self, plugin: PluginCore[Any], scope: Scope, receive: Receive, send: Send) -> None:
        scope[self._plugin_key] = (plugin, scope.get("headers"), scope.get("user"))
        context, reason, denial, cause = await self._outcome(plugin, scope)
        self._write(scope, context, reason)
        # The admin has its own guard, and is what an operator needs while nobody can be resolved.
        freed = None if denial is None else leads_to(self.app, scope)
        if reason is not None:
            scope[self._denial_key] = denial
        if freed is not None and freed != "admin":
            reason = "excluded"
            self._write(scope, None, reason)
        outcome = reason or "served" if denial is None or freed else "refused"
        if cause is None or (freed is not None and freed != "admin"):
            plugin.count(outcome)
            if outcome != "served":
                scope[self._counted_key] = Counted(outcome)
        else:
            # An anonymous request where no context is required is no fault.
            is_reported = freed is None and (denial is not None or cause.label != "anonymous")
            is_admin = partial(self._is_for_admin, scope) if is_reported else None
            plugin.refusals.add(cause, outcome, scope, is_admin=is_admin)
            scope[self._counted_key] = Counted(outcome, cause, is_reported=is_reported)
        token = self._variable.set(context)
        try:
            if denial is not None:
                await self._deny(denial, scope, receive, send, freed=freed)
            else:
                await self._serve_exempt(scope, receive, send, exempt=reason == "excluded")
        finally:
            _reset(self._variable, token)

    async def _serve_exempt(self, scope: Scope, receive: Receive, send: Send, *, exempt: bool) -> None:
        """Call the app; the answer to an excluded path is held back until the app has read the path likewise."""
        is_likewise = self._exemptions.follow(scope) if exempt and self._required else None
        if is_likewise is None:
            await self.app(scope, receive, send)
        else:
            await self._hold_back(denial_for("anonymous"), is_likewise, scope, receive, send)

    def _is_resolved(self, plugin: PluginCore[Any], scope: Scope) -> bool:
        """Return whether an outer middleware with the same plugin has resolved who asks now.

        A copy of the scope with other headers, or a user signed in since, is another question.
        """
        if scope.get(self._refusal_key) == "excluded":
            return False  # nobody was asked there: whether this path is excluded here is for this one to say
        match scope.get(self._plugin_key):
            case (resolver, headers, user):
                return resolver is plugin and headers is scope.get("headers") and user is scope.get("user")
        return False

    async def _deny(self, denial: Denial, scope: Scope, receive: Receive, send: Send, *, freed: Freed | None) -> None:
        if freed is None:
            await self._refuse(denial, scope, receive, send)
            return

        def is_there(message: Message) -> bool:
            if isinstance(freed, Redirect):
                return freed.is_sent_by(message)
            return freed == "public" and is_public(scope.get("endpoint"))

        await self._hold_back(denial, is_there, scope, receive, send)

    async def _hold_back(
        self, denial: Denial, is_there: Callable[[Message], bool], scope: Scope, receive: Receive, send: Send
    ) -> None:
        # Each layer holds back what it was given to send: on a copied scope that is not the outer layer's.
        async def withhold() -> None:
            self._count_refusal(scope, WITHHELD)
            await self._refuse(denial, scope, receive, send)

        gate = Gate(withhold, send, is_there, scope.get(FREED_KEY))
        scope[FREED_KEY] = gate
        await self.app(scope, receive, gate.send)

    async def _outcome(
        self, plugin: PluginCore[Any], scope: Scope
    ) -> tuple[object, Reason | None, Denial | None, Cause | None]:
        """Return the context, or why there is none, the refusal that follows if one does, and what explains it."""
        try:
            if self._exemptions.is_exempt(scope):
                return None, "excluded", None, None
            context, reason = await context_of(plugin, scope)
        except Exception as error:  # noqa: BLE001 - raised in a middleware it would be an answer nobody chose
            denial, cause = denial_of(error, take_rejection(scope))
            return None, denial.reason, denial, cause
        if reason is None:
            return context, None, None, None
        identity = scope.get(f"{plugin.scope_key}_identity") if reason in ("unknown", "inactive") else None
        user = None if identity is None else plugin.pseudonyms.of(identity)
        explained = cause_of(reason, take_rejection(scope), plugin.identify, user)
        return context, reason, denial_for(reason) if self._required else None, explained

    def _count_refusal(self, scope: Scope, cause: Cause | None = None) -> None:
        """Count a request as refused that was counted as another one before."""
        counted = scope.pop(self._counted_key, None)
        if isinstance(counted, Counted) and not isinstance(self._plugin, ConfigurationError):
            self._plugin.refusals.refuse(counted, cause)

    def _is_for_admin(self, scope: Scope) -> bool:
        return leads_to(self.app, scope) == "admin"

    def _write(self, scope: Scope, context: object, reason: Reason | None) -> None:
        """Put the context where applications look for it, in place: outer middlewares read the scope after the call."""
        scope[self._key] = context
        if reason is not None or self._refusal_key in scope:
            scope[self._refusal_key] = reason
        state = scope.get("state")
        if state is None:
            state = scope["state"] = {}
        elif self._key in state:
            # A host that gives all requests one state: a request under way would find this one's user in its own.
            state = scope["state"] = dict(state)
        state[self._key] = context

    async def _pass_through(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what an outer middleware with the same plugin has resolved; only `required` is still ours to keep."""
        exempt = self._required and self._exemptions.is_exempt(scope)
        if self._required and not exempt and scope[self._key] is None:
            denial = denial_on(scope, self._key) or denial_for(scope.get(self._refusal_key) or "anonymous")
            freed = leads_to(self.app, scope)
            if freed is None:
                self._count_refusal(scope)
            await self._deny(denial, scope, receive, send, freed=freed)
            return
        await self._serve_exempt(scope, receive, send, exempt=exempt and scope[self._key] is None)

    async def _serve_broken(self, error: ConfigurationError, scope: Scope, receive: Receive, send: Send) -> None:
        level = self._seldom.level(logging.ERROR)
        logger.log(level, "every request is refused, because the configuration cannot work: %s", error)
        await self._refuse(FAILED, scope, receive, send)

    async def _refuse(self, denial: Denial, scope: Scope, receive: Receive, send: Send) -> None:
        self._cors_order.check(scope)
        await refuse(denial, await self._response(denial, scope), scope, receive, send)

    async def _response(self, denial: Denial, scope: Scope) -> Response:
        if self._on_refusal is not None:
            try:
                response = self._on_refusal(HTTPConnection(scope), denial.reason)
                if isawaitable(response):
                    response = await response
                if response is not None and not callable(response):
                    raise TypeError(f"on_refusal returned {type(response).__name__}; it returns a Response or None")
            except Exception as error:
                level = self._seldom.level(logging.ERROR, "on_refusal")
                logger.log(level, "on_refusal failed; the refusal is answered without it", exc_info=error)
            else:
                if response is not None:
                    return response
        return denial.response()

    def _resources(self) -> AbstractAsyncContextManager[object]:
        return FailingResources(self._plugin) if isinstance(self._plugin, ConfigurationError) else self._plugin


def _reset(variable: ContextVar[Any], token: Token[Any]) -> None:
    try:
        variable.reset(token)
    except ValueError:
        # A call that its host has dropped is closed by the garbage collector, in whatever context that runs in.
        logger.debug("a dropped call was closed in another context than its own")


def _from_environment() -> PluginCore[Any] | ConfigurationError:
    # Starlette builds middlewares at the first request: raised here, the server would start and serve only errors.
    try:
        return PluginCore(**arguments_from_env(os.environ))
    except ConfigurationError as error:
        return error
