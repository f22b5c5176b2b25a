"""Nobody gets another's context and nobody harms another, however requests overlap, fail and are cancelled."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

import anyio
import pytest
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from ctxmiddleware import (
    CachePolicy,
    ContextPlugin,
    Identity,
    Loaded,
    SourceUnavailable,
    UserContext,
    UserContextMiddleware,
    current_user_context,
    get_user_context,
)
from ctxmiddleware.testing import StaticSource

from .asgi import ask, http_scope, no_lifespan, websocket_scope
from .matrix import Cases
from .people import ADA, BOB, by_header, context_of, known, plugin_of

pytestmark = pytest.mark.anyio

USERS = 60


async def some_turns(rng: random.Random) -> None:
    """Let others run a few times, or not at all."""
    for _ in range(rng.randrange(4)):
        await anyio.lowlevel.checkpoint()


class Crowd:
    """A source that takes its time, knows some users, and fails for some.

    It guards itself, and never opens: three failing users among the first five would have all others refused.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    async def fetch(self, identity: Identity) -> UserContext | None:
        await some_turns(self._rng)
        email = identity.name
        number = int(email.split("@")[0][1:])
        if number % 10 == 7:
            raise SourceUnavailable("down")
        return None if number % 10 == 8 else context_of(email, number=number, is_active=number % 10 != 9)

    def path_states(self) -> dict[str, str]:
        """Have no breaker."""
        return {}


class Witness:
    """An app that checks, at every turn and by every way, that it serves the one who asked."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.outcomes: Counter[str] = Counter()
        self.mixed_up: list[tuple[str | None, object]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asker = scope["asker"]
        for _ in range(3):
            await some_turns(self._rng)
            context = scope["user_context"]
            email = None if context is None else context.email
            if context is not None:
                ways = (context, current_user_context(), scope["state"]["user_context"], get_user_context(_c(scope)))
                if email != asker or any(way is not context for way in ways):
                    self.mixed_up.append((asker, ways))
            elif current_user_context() is not None or scope["state"]["user_context"] is not None:
                self.mixed_up.append((asker, current_user_context()))
        self.outcomes[scope.get("user_context_refusal") or "served"] += 1


def _c(scope: Scope) -> HTTPConnection:
    return HTTPConnection(scope)


def identify_of(rng: random.Random) -> Callable[[Scope], object]:
    """Return an identify that is now sync, now async, and sometimes takes its time."""

    async def later(scope: Scope) -> Identity | None:
        await some_turns(rng)
        return by_header(scope)

    return lambda scope: by_header(scope) if rng.random() < 0.5 else later(scope)


@pytest.mark.parametrize("shared_state", [False, True], ids=["a state each", "one state for all"])
async def test_thousands_of_requests_get_their_own(shared_state: bool, cases: Cases) -> None:  # noqa: FBT001
    """Among thousands of overlapping requests of many users, cancelled at random while users are invalidated and
    evicted, each sees its own user and no other.
    """
    requests = 4000 if cases is Cases.FULL else 1000
    rng = random.Random(20)
    plugin: ContextPlugin[UserContext] = ContextPlugin(
        source=Crowd(rng),
        identify=identify_of(rng),  # type: ignore[arg-type]  # it answers in two ways by chance
        policy=CachePolicy(max_users=USERS // 2, negative_ttl=0.01),
    )
    witness = Witness(rng)
    app = UserContextMiddleware(witness, plugin=plugin)
    state: dict[str, object] = {}
    cancelled = 0

    async def one(number: int) -> None:
        nonlocal cancelled
        user = None if number % 13 == 0 else f"u{rng.randrange(USERS)}@example.com"
        scope_of = http_scope if number % 3 else websocket_scope
        more: dict[str, Any] = {"state": state} if shared_state else {}
        scope = scope_of(user=user, asker=user, **more)
        with anyio.CancelScope() as cancel:
            if number % 4 == 0:
                tasks.start_soon(give_up, cancel)
            await ask(app, scope)
        cancelled += cancel.cancelled_caught

    async def give_up(cancel: anyio.CancelScope) -> None:
        await some_turns(rng)
        cancel.cancel()

    async with plugin:
        for start in range(0, requests, 200):
            async with anyio.create_task_group() as tasks:
                for number in range(start, start + 200):
                    tasks.start_soon(one, number)
                    if number % 40 == 0:
                        tasks.start_soon(plugin.invalidate, f"u{rng.randrange(USERS)}@example.com")
    assert witness.mixed_up == []
    assert set(witness.outcomes) == {"served", "anonymous", "unknown", "inactive"}
    assert witness.outcomes["served"] > requests / 4
    assert cancelled > requests / 40
    assert current_user_context() is None


class Gated(StaticSource[UserContext]):
    """A source that answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(known())
        self.gate = anyio.Event()

    async def fetch(self, identity: Identity) -> Loaded[UserContext]:
        answer = await super().fetch(identity)
        await self.gate.wait()
        return answer


@pytest.mark.parametrize("first_cancelled", [True, False])
async def test_who_gives_up_while_the_source_is_asked_harms_nobody(first_cancelled: bool) -> None:  # noqa: FBT001
    """Of many waiting for one load some are cancelled, even the one that began it; the rest are served by that load."""
    source = Gated()
    app = UserContextMiddleware(no_lifespan, plugin=plugin_of(source), required=True)
    answers: list[object] = []
    scopes: list[anyio.CancelScope] = []

    async def one() -> None:
        with anyio.CancelScope() as cancel:
            scopes.append(cancel)
            answers.append((await ask(app, http_scope(user=ADA))).json())

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(one)
        await anyio.wait_all_tasks_blocked()
        for cancel in scopes[:10] if first_cancelled else scopes[10:]:
            cancel.cancel()
        await anyio.wait_all_tasks_blocked()
        source.gate.set()
    assert answers == [ADA] * 10
    assert source.calls == [Identity(ADA)]


async def test_a_load_whose_callers_are_all_gone_serves_the_next() -> None:
    """What was begun is brought to its end, and the next request finds it."""
    source = Gated()
    app = UserContextMiddleware(no_lifespan, plugin=plugin_of(source))
    with anyio.move_on_after(0.01) as cancel:
        await ask(app, http_scope(user=ADA))
    assert cancel.cancelled_caught
    source.gate.set()
    assert (await ask(app, http_scope(user=ADA))).json() == ADA
    assert source.calls == [Identity(ADA)]


@pytest.mark.parametrize("place", ["identify", "open", "app"])
async def test_who_gives_up_anywhere_else_harms_nobody(place: str) -> None:
    """Cancelled while identifying, while the plugin opens, or in the app: others go on, and nothing stays behind."""
    gate = anyio.Event()

    class Slow(StaticSource[UserContext]):
        async def __aenter__(self) -> Self:
            if place == "open":
                await gate.wait()
            return self

        async def __aexit__(self, *exc: object) -> None:
            """Close nothing."""

    async def identify(scope: Scope) -> Identity | None:
        if place == "identify":
            await gate.wait()
        return by_header(scope)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if place == "app":
            await gate.wait()
        assert current_user_context() is scope["user_context"]
        await no_lifespan(scope, receive, send)

    middleware = UserContextMiddleware(app, plugin=plugin_of(Slow(known()), identify))
    answers: list[object] = []

    async def one(user: str) -> None:
        answers.append((await ask(middleware, http_scope(user=user))).json())

    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as giving_up:
            for _ in range(5):
                giving_up.start_soon(one, BOB)
            tasks.start_soon(one, ADA)
            await anyio.wait_all_tasks_blocked()
            giving_up.cancel_scope.cancel()
        gate.set()
    assert answers == [ADA]
    assert (await ask(middleware, http_scope(user=BOB))).json() == BOB
    assert current_user_context() is None


async def test_a_timeout_around_a_request_is_the_hosts_alone() -> None:
    """A cancel scope of the app's or the host's is not mistaken for one of the middleware's."""
    source = Gated()
    app = UserContextMiddleware(no_lifespan, plugin=plugin_of(source))
    with pytest.raises(TimeoutError):
        with anyio.fail_after(0.01):
            await ask(app, http_scope(user=ADA))
    source.gate.set()
    assert (await ask(app, http_scope(user=ADA))).status == 200
