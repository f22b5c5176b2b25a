"""Driving an ASGI app by hand: one request, one websocket, one lifespan, with nothing between test and app."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .people import as_user


@dataclass
class Answer:
    """What an app has sent."""

    sent: list[Message] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        """The types of the messages, in their order."""
        return [message["type"] for message in self.sent]

    @property
    def status(self) -> int:
        """The status of the response."""
        status: int = self._start["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the response."""
        return {name.decode(): value.decode() for name, value in self._start["headers"]}

    @property
    def body(self) -> bytes:
        """The body of the response."""
        return b"".join(message.get("body", b"") for message in self.sent)

    def json(self) -> Any:
        """Return the body, decoded."""
        return json.loads(self.body)

    @property
    def _start(self) -> Message:
        return next(message for message in self.sent if message["type"].endswith("http.response.start"))

    async def send(self, message: Message) -> None:
        """Take a message, as a host does."""
        self.sent.append(message)


def http_scope(path: str = "/", user: str | None = None, **more: Any) -> Scope:
    """Return the least a host must give for an http request."""
    return {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": _headers(user), **more}


def websocket_scope(path: str = "/", user: str | None = None, **more: Any) -> Scope:
    """Return the least a host must give for a websocket."""
    return {"type": "websocket", "path": path, "query_string": b"", "headers": _headers(user), **more}


async def ask(app: ASGIApp, scope: Scope) -> Answer:
    """Call an app that must not receive anything, and return what it sent."""
    answer = Answer()
    await app(scope, must_not_receive, answer.send)
    return answer


async def must_not_receive() -> Message:
    """Stand for a host's `receive` that nobody may touch."""
    raise AssertionError("receive was called")


def _headers(user: str | None) -> Iterable[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in as_user(user).items()]


class Host:
    """A host that carries out one lifespan, step by step.

    Args:
        app: what it runs.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._send, self._receive = anyio.create_memory_object_stream[Message](8)
        self._news = anyio.Event()
        self.scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self.sent: list[Message] = []
        self.error: Exception | None = None
        self.ended = False

    async def run(self) -> None:
        """Run the app's lifespan to its end, and keep what it raises."""
        with self._send, self._receive:
            try:
                await self._app(self.scope, self._receive.receive, self._take)
            except Exception as error:  # noqa: BLE001 - the test looks at it
                self.error = error
            finally:
                self.ended = True
                self._news.set()

    @property
    def kinds(self) -> list[str]:
        """What the app has answered, without `lifespan.`."""
        return [message["type"].removeprefix("lifespan.") for message in self.sent]

    async def start(self) -> str:
        """Ask for start-up and return the answer, or "ended"."""
        return await self._asked("startup")

    async def stop(self) -> str:
        """Ask for shut-down and return the answer, or "ended"."""
        return await self._asked("shutdown")

    async def end(self) -> None:
        """Wait until the app has returned."""
        with anyio.fail_after(10):
            while not self.ended:
                await self._news.wait()
                self._renew()

    async def _asked(self, phase: str) -> str:
        before = len(self.sent)
        self._send.send_nowait({"type": f"lifespan.{phase}"})
        with anyio.fail_after(10):
            while len(self.sent) == before and not self.ended:
                await self._news.wait()
                self._renew()
        return self.kinds[before] if len(self.sent) > before else "ended"

    def _renew(self) -> None:
        if not self.ended:
            self._news = anyio.Event()

    async def _take(self, message: Message) -> None:
        self.sent.append(message)
        self._news.set()


async def no_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer http with the user's address, and know nothing of lifespans."""
    assert scope["type"] == "http"
    context = scope["user_context"]
    body = b"null" if context is None else json.dumps(context.email).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
