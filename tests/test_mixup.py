"""Nobody gets another's context, with requests cancelled anywhere; and whether that would be seen at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from ctxmiddleware.accessors import context_variable

from .bench import mixup
from .bench.mixup import Draw
from .matrix import Cases

# So few that two thousand requests go through all tiers, too.
FEW = Draw(users=2_000, invalidated=0.01)


def silent(line: str) -> None:
    """Leave out how far it is."""


def test_nobody_is_answered_with_anothers_context(cases: Cases) -> None:
    """Of thousands of requests at once, a tenth cancelled, each answer is its asker's, and none fails."""
    requests, draw = (10_000, Draw()) if cases is Cases.FULL else (2_000, FEW)
    outcomes = mixup.measure(requests, draw=draw, tell=silent).outcomes
    assert outcomes["mix-ups"] == 0
    assert outcomes["answered"] + outcomes["cancelled"] == requests
    # Or it would have shown nothing.
    assert all(outcomes[each] > 0 for each in ("cancelled", "invalidations", "from Redis", "source calls"))


class OnItself:
    """Keeps what belongs to a request on the middleware, over an await."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._context = scope["user_context"]
        await asyncio.sleep(0)
        scope["user_context"] = self._context
        await self._app(scope, receive, send)


class NotReset:
    """Sets the context variable of the task that serves, only where there is a user, and later than others run."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._last: object = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["user_context"] is None:
            # As a task of a pool finds it, that served somebody before.
            context_variable("user_context").set(self._last)
        self._last = scope["user_context"]
        await self._app(scope, receive, send)


class OneState:
    """Gives all requests one state."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._state: dict[str, object] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._state |= scope["state"]
        scope["state"] = self._state
        await self._app(scope, receive, send)


@pytest.mark.parametrize("broken", [OnItself, NotReset, OneState])
def test_a_middleware_that_mixes_people_up_is_found(broken: Callable[[ASGIApp], ASGIApp]) -> None:
    """Each of the mistakes that middlewares are known for is seen by the same run."""
    crowd = mixup.measure(2000, inside=broken, tell=silent)
    assert crowd.outcomes["mix-ups"] > 0
    assert crowd.examples
