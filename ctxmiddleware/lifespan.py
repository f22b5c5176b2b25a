"""Running the plugin inside an app's lifespan, whatever that app does with it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeVar

import anyio
from starlette.applications import Starlette
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .destination import layers
from .failure_log import log_failure

logger = logging.getLogger("ctxmiddleware.lifespan")

R = TypeVar("R")


class LifespanRun:
    """One lifespan: opens the plugin when start-up is asked for, closes it before shut-down is answered.

    An app without a lifespan (it raises or returns before it has answered start-up) is answered for, and the shut-down
    is waited for in its place: otherwise the host would never run our own.

    Args:
        app: the app inside.
        resources: what to open and close.
        receive: the host's.
        send: the host's.
    """

    def __init__(
        self, app: ASGIApp, resources: AbstractAsyncContextManager[object], receive: Receive, send: Send
    ) -> None:
        self._app = app
        self._resources = resources
        self._receive = receive
        self._send = send
        self._opened = AsyncExitStack()
        self._failure: Exception | None = None
        self._asked: set[str] = set()
        self._answered: set[str] = set()

    async def run(self, scope: Scope) -> None:
        """Carry the lifespan out.

        Raises:
            Exception: what our own start-up raised, or what the app raised after it had answered start-up.
        """
        try:
            await self._run_app(scope)
            if "lifespan.startup.failed" not in self._answered:
                await self._answer_for_app()
        finally:
            await self._close()

    async def _close(self) -> None:
        # A host that cancels its lifespan task must still get back what we opened.
        with anyio.CancelScope(shield=True):
            await self._opened.aclose()

    async def _run_app(self, scope: Scope) -> None:
        try:
            await self._app(scope, self._receive_for_app, self._send_for_app)
        except Exception as error:
            if self._failure is None:
                if self._has_answered("startup") or _has_lifespan(self._app):
                    raise
                message = "taken as an app without a lifespan, because it raised before it answered start-up"
                log_failure(logger, logging.WARNING, message, error=error)
        # Whatever the app made of it, and outside of its handler: what the failure says of its causes is kept.
        if self._failure is not None:
            raise self._failure

    async def _receive_for_app(self) -> Message:
        message = await self._of_host(self._receive())
        self._asked.add(message["type"])
        if message["type"] == "lifespan.startup":
            await self._open()
        return message

    async def _send_for_app(self, message: Message) -> None:
        if self._failure is not None:
            return  # the host has been answered, or has raised; what the app says of it would be a second answer
        self._answered.add(message["type"])
        if message["type"] != "lifespan.startup.complete":
            await self._close()
        await self._of_host(self._send(message))

    async def _answer_for_app(self) -> None:
        if not self._has_answered("startup"):
            if "lifespan.startup" not in self._asked:
                await self._receive_for_app()
            await self._send({"type": "lifespan.startup.complete"})
        if not self._has_answered("shutdown"):
            while "lifespan.shutdown" not in self._asked:
                await self._receive_for_app()
            await self._close()
            await self._send({"type": "lifespan.shutdown.complete"})

    async def _open(self) -> None:
        try:
            await self._opened.enter_async_context(self._resources)
        except Exception as error:
            self._failure = error
            # Both are needed: without the answer some hosts hang, without the raise others go on serving.
            if not self._has_answered("startup"):
                message = {"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"}
                await self._of_host(self._send(message))
            raise

    async def _of_host(self, call: Awaitable[R]) -> R:
        """Carry out a call of the host's, and remember what it raises.

        Hypercorn stops by what it raises from `send` and goes on serving where anything else comes back; an outer
        middleware that could not start raises from `receive`. Neither is an app that has no lifespan.
        """
        try:
            return await call
        except Exception as error:
            self._failure = error
            raise

    def _has_answered(self, phase: str) -> bool:
        return bool(self._answered & {f"lifespan.{phase}.complete", f"lifespan.{phase}.failed"})


class FailingResources(AbstractAsyncContextManager[None]):
    """Stands for a plugin that could not be built: opening it raises why.

    Args:
        error: is raised.
    """

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def __aenter__(self) -> None:
        raise self._error

    async def __aexit__(self, *exc: object) -> None:
        return None


def _has_lifespan(app: ASGIApp) -> bool:
    """Return whether a Starlette app or router is inside: both have a lifespan, and raise only where one is broken."""
    return any(isinstance(layer, Starlette | Router) for layer in layers(app))
