"""Whether anybody ever gets another's context: many users' requests through one app, some cancelled anywhere."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import anyio
import anyio.lowlevel
from rich.progress import Progress
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Scope

from ctxmiddleware import (
    CachePolicy,
    ContextPlugin,
    Employee,
    Identity,
    UserContext,
    UserContextMiddleware,
    current_user_context,
    get_user_context,
)

REQUESTS: Final = 1_000_000
USERS: Final = 10_000
AT_ONCE: Final = 250
# Of all requests so many are given up, after a time in which most would still be under way.
CANCELLED: Final = 0.2
LONGEST_PATIENCE: Final = 0.004


@dataclass
class Tally:
    """What became of the requests."""

    requests: int = 0
    answered: int = 0
    cancelled: int = 0
    mixed_up: int = 0


class Slow:
    """A source that takes a while, and for each call another one."""

    def __init__(self, users: Sequence[str], rng: random.Random) -> None:
        self._contexts = {email: _context(number, email) for number, email in enumerate(users)}
        self._rng = rng

    async def fetch(self, email: str) -> UserContext | None:
        """Return one user's context."""
        return (await self.fetch_many([email]))[email]

    async def fetch_many(self, emails: Sequence[str]) -> Mapping[str, UserContext | None]:
        """Return contexts, in another order than they were asked for."""
        await anyio.sleep(self._rng.random() * 0.003)
        return {email: self._contexts.get(email) for email in self._rng.sample(emails, len(emails))}


def _context(number: int, email: str) -> UserContext:
    return UserContext(email, Employee(number, email, f"User {number}", None, "rep", is_active=True), (), (), ())


def by_header(scope: Scope) -> Identity | None:
    """Take the word of a header for who asks."""
    return Identity(dict(scope["headers"])[b"x-user"].decode())


async def me(request: Request) -> Response:
    """Tell whose context there is, in every place, before and after others had their turn."""
    before = [request.state.user_context.email, get_user_context(request).email]
    await anyio.lowlevel.checkpoint()
    now = current_user_context()
    return JSONResponse([*before, None if now is None else now.email, request.scope["user_context"].email])


def app_of(plugin: ContextPlugin[UserContext]) -> ASGIApp:
    """Return the app."""
    app = Starlette(routes=[Route("/me", me)])
    app.add_middleware(UserContextMiddleware, plugin=plugin)
    return app


async def measure(
    requests: int,
    *,
    users: int = USERS,
    build: Callable[[ContextPlugin[UserContext]], ASGIApp] = app_of,
    told: Callable[[int], object] = lambda done: None,
    seed: int = 1,
) -> Tally:
    """Send requests of random users, some of which are cancelled, and compare each answer with who asked.

    Args:
        requests: how many.
        users: of how many users.
        build: makes the app.
        told: told from time to time how many have been sent since it was told last.
        seed: of what is random.
    """
    rng = random.Random(seed)
    emails = [f"user{number}@example.org" for number in range(users)]
    # Half of the users fit into memory, so that some are always being loaded.
    policy = CachePolicy(max_users=users // 2, max_loads=16, ttl=5.0)
    plugin = ContextPlugin(source=Slow(emails, rng), identify=by_header, policy=policy)
    tally, left = Tally(), iter(range(requests))
    async with plugin:
        app = build(plugin)

        async def work() -> None:
            for number in left:
                await _ask(app, rng.choice(emails), rng, tally)
                if number % 1000 == 999:
                    told(1000)

        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(work)
    return tally


async def _ask(app: ASGIApp, email: str, rng: random.Random, tally: Tally) -> None:
    scope = {
        "type": "http", "method": "GET", "path": "/me", "query_string": b"", "root_path": "", "http_version": "1.1",
        "headers": [(b"x-user", email.encode())],
    }  # fmt: skip
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    tally.requests += 1
    patience = rng.random() * LONGEST_PATIENCE if rng.random() < CANCELLED else float("inf")
    with anyio.move_on_after(patience) as limit:
        await app(scope, _nothing, send)
    if limit.cancelled_caught:
        tally.cancelled += 1
    # Also of a request that was given up after it was answered.
    body = b"".join(message.get("body", b"") for message in sent)
    if body:
        tally.answered += 1
        tally.mixed_up += json.loads(body) != [email] * 4


async def _nothing() -> Message:
    await anyio.sleep_forever()
    raise AssertionError


def run(requests: int = REQUESTS) -> list[dict[str, object]]:
    """Return what became of so many requests, on uvloop, with a bar that shows how far it is."""
    began = time.monotonic()
    with Progress() as progress:
        bar = progress.add_task("requests", total=requests)

        async def all_of_them() -> Tally:
            return await measure(requests, told=lambda done: progress.advance(bar, done))

        tally: Any = anyio.run(all_of_them, backend_options={"use_uvloop": True})
    return [{**vars(tally), "users": USERS, "seconds": round(time.monotonic() - began, 1)}]
