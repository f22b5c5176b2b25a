"""Whether anybody is answered with another's context: many requests at once, of which some are cancelled anywhere."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Scope

from ctxmiddleware import (
    BatchSource,
    CachePolicy,
    ContextPlugin,
    Identity,
    Loaded,
    RedisOptions,
    UserContext,
    UserContextMiddleware,
    current_user_context,
    user_context_from_scope,
)
from examples.servers import Valkey
from tests.cache.rig import PATIENT
from tests.people import context_of

REQUESTS = 1_000_000
USERS = 10_000
AT_ONCE = 200
# Shares of all requests: cancelled somewhere on their way, anonymous, and after which whoever asked is invalidated.
CANCELLED, ANONYMOUS, INVALIDATED = 0.1, 0.02, 0.001
# Not for long, so that many requests go on to Redis, and to the source.
POLICY = CachePolicy(ttl=20.0, untrusted_ttl=1.0)
# A busy Redis is waited for; a lease that a cancelled request leaves behind is not.
REDIS = replace(PATIENT, lease=RedisOptions().lease)
TELL_EVERY = 100_000

Tell = Callable[[str], None]


class Users(BatchSource[UserContext]):
    """Knows everybody, and each of its calls takes a different time."""

    label = "users"

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.calls = 0

    async def fetch(self, identity: Identity) -> Loaded[UserContext]:
        """Return who it was asked for."""
        return (await self.fetch_many([identity]))[identity]

    async def fetch_many(self, identities: Sequence[Identity]) -> dict[Identity, Loaded[UserContext]]:
        """Return all of them."""
        self.calls += 1
        await asyncio.sleep(self._rng.random() * 0.005)
        return {each: Loaded(context_of(mark_of(each)), "source") for each in identities}


def mark_of(identity: Identity) -> str:
    """Return what a context holds of whom it is for: the same text is an address and a subject, in two tenants."""
    return json.dumps([identity.tenant, identity.key, identity.name])


async def by_header(scope: Scope) -> Identity | None:
    """Find a JSON object in a header, after others had their turn."""
    await asyncio.sleep(0)
    sent = dict(scope["headers"]).get(b"x-user")
    return None if sent is None else Identity(**json.loads(sent))


def seen_by(request: Request) -> list[str | None]:
    """Return whose context the request has, by each way an application reaches it."""
    ways = (user_context_from_scope(request.scope), request.state.user_context, current_user_context())
    return [None if context is None else context.email for context in ways]


async def whole(request: Request) -> Response:
    """Tell whose context it is, before and after others had their turn."""
    before = seen_by(request)
    await asyncio.sleep(0)
    return JSONResponse([*before, *seen_by(request)])


async def in_pieces(request: Request) -> Response:
    """Tell it in a stream, which is still sent when the endpoint has returned."""

    async def pieces() -> AsyncIterator[str]:
        for begin in ("[", ",", ","):
            yield begin + json.dumps(seen_by(request))[1:-1]
            await asyncio.sleep(0)
        yield "]"

    return StreamingResponse(pieces())


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


@dataclass(frozen=True)
class Draw:
    """What is left to chance.

    Args:
        seed: of all that is but the event loop's own order.
        users: how many there are; memory holds a fifth of them.
        invalidated: share of requests after which their user is invalidated.
    """

    seed: int = 5
    users: int = USERS
    invalidated: float = INVALIDATED


class Crowd:
    """Asks an app for many users at once and compares each answer with who asked.

    Args:
        app: what it asks.
        plugin: where users are invalidated meanwhile.
        rng: who asks, and who is cancelled when.
        draw: among how many users, and how many of them are invalidated.
    """

    def __init__(self, app: ASGIApp, plugin: ContextPlugin[UserContext], rng: random.Random, draw: Draw) -> None:
        self._app = app
        self._plugin = plugin
        self._rng = rng
        self._draw = draw
        self.outcomes: Counter[str] = Counter()
        self.examples: list[str] = []

    async def ask(self, requests: int, tell: Tell) -> None:
        """Make so many requests, `AT_ONCE` at a time."""
        numbers = iter(range(1, requests + 1))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(self._work(numbers, requests, tell))

    async def _work(self, numbers: Iterator[int], requests: int, tell: Tell) -> None:
        for number in numbers:
            identity = self._somebody()
            await self._one(identity)
            if identity is not None and self._rng.random() < self._draw.invalidated:
                await self._plugin.invalidate(identity)
                self.outcomes["invalidations"] += 1
            if number % TELL_EVERY == 0:
                tell(f"  {number:,} of {requests:,} requests, {self.outcomes['mix-ups']} mix-ups")

    def _somebody(self) -> Identity | None:
        if self._rng.random() < ANONYMOUS:
            return None
        # Half of the requests are a twentieth of the users'. Four of them share each text.
        number = self._rng.randrange(self._draw.users // (20 if self._rng.random() < 0.5 else 1))
        text, tenant = f"user{number // 4}@example.org", "acme" if number % 2 else ""
        return Identity(text, tenant=tenant) if number % 4 < 2 else Identity(subject=text, tenant=tenant)

    async def _one(self, identity: Identity | None) -> None:
        request = asyncio.create_task(self._request(identity))
        timer = None
        if self._rng.random() < CANCELLED:
            # Most within a few turns of the event loop, which is where a hit is; the rest while something is awaited.
            delay = 0.0 if self._rng.random() < 0.5 else self._rng.random() * 0.01
            timer = asyncio.get_running_loop().call_later(delay, request.cancel)
        try:
            self._compare(identity, *await request)
        except asyncio.CancelledError:
            self.outcomes["cancelled"] += 1
        finally:
            if timer is not None:
                timer.cancel()

    async def _request(self, identity: Identity | None) -> tuple[int, bytes]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)
            await asyncio.sleep(0)

        await self._app(self._scope(identity), _receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)

    def _scope(self, identity: Identity | None) -> Scope:
        headers = [] if identity is None else [(b"x-user", self._spelled(identity))]
        path = self._rng.choice(("/whole", "/pieces"))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "method": "GET",
            "path": path,
            "root_path": "",
            "query_string": b"",
            "headers": headers,
        }

    def _spelled(self, identity: Identity) -> bytes:
        name = identity.name
        if identity.key == "email":
            name = self._rng.choice((name, name.upper(), f" {name}"))
        return json.dumps({identity.key: name, "tenant": identity.tenant}).encode()

    def _compare(self, identity: Identity | None, status: int, body: bytes) -> None:
        expected = None if identity is None else mark_of(identity)
        if status != 200:
            self.outcomes[f"status {status}"] += 1
            return
        self.outcomes["answered"] += 1
        found = json.loads(body)
        if not found or any(each != expected for each in found):
            self.outcomes["mix-ups"] += 1
            self.examples.append(f"asked by {expected}, answered {found}")


async def _measure(requests: int, redis: str, draw: Draw, inside: Callable[[ASGIApp], ASGIApp], tell: Tell) -> Crowd:
    rng, policy = random.Random(draw.seed), replace(POLICY, max_users=draw.users // 5)
    source = Users(rng)
    plugin = ContextPlugin(source=source, identify=by_header, redis=redis, redis_options=REDIS, policy=policy)
    app = inside(Starlette(routes=[Route("/whole", whole), Route("/pieces", in_pieces)]))
    async with plugin:
        crowd = Crowd(UserContextMiddleware(app, plugin=plugin), plugin, rng, draw)
        await crowd.ask(requests, tell)
    crowd.outcomes["source calls"] = source.calls
    crowd.outcomes["from Redis"] = plugin.stats().resolutions.get("redis", 0)
    return crowd


def measure(
    requests: int,
    *,
    draw: Draw = Draw(),
    inside: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    tell: Tell = print,
) -> Crowd:
    """Make so many requests and return what became of them.

    Args:
        requests: how many.
        draw: what is left to chance.
        inside: wraps the app inside the middleware, to break it.
        tell: is told how far it is.
    """
    if sys.platform == "win32":
        new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    else:
        from uvloop import new_event_loop
    with Valkey.start() as server, asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_measure(requests, server.url, draw, inside, tell))


def run(requests: int = REQUESTS) -> list[dict[str, object]]:
    """Return how many requests were made, how each ended, and how many were answered with another's context."""
    began = time.perf_counter()
    crowd = measure(requests, tell=lambda line: print(line, flush=True))
    seconds = time.perf_counter() - began
    for example in crowd.examples[:5]:
        print(f"  MIXED UP: {example}", flush=True)
    others = sum(count for outcome, count in crowd.outcomes.items() if outcome.startswith("status"))
    told = ("answered", "cancelled", "invalidations", "from Redis", "source calls", "mix-ups")
    return [
        {
            "requests": requests,
            "users": USERS,
            **{name: crowd.outcomes[name] for name in told},
            "refused": others,
            "seconds": round(seconds, 1),
            "exit code": int(bool(crowd.outcomes["mix-ups"] or others)),
        }
    ]
