"""Requests that are let through because they lead to the admin, or to a public endpoint: nobody else answers them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.types import Message, Scope, Send

FREED_KEY: Final = "user_context_freed"


class Gate:
    """Holds back every answer to a freed request until whom it was freed for is reached, and refuses in its place.

    Routing is read before the request takes its way: a middleware inside that rewrites paths may lead it elsewhere.

    Args:
        refuse: answers with the refusal it was freed from.
        send: the host's.
        is_there: says of the answer's first message whether it was reached, where the scope or the message show that.
        outer: the gate of a middleware further out, which is told too when an admin is reached.
    """

    def __init__(
        self,
        refuse: Callable[[], Awaitable[None]],
        send: Send,
        is_there: Callable[[Message], bool],
        outer: object = None,
    ) -> None:
        self._is_there = is_there
        self._outer = outer if isinstance(outer, Gate) else None
        self._refuse = refuse
        self._send = send
        self._reached = False
        self._refused = False

    def reach(self) -> None:
        """Take note that an admin has got the request."""
        self._reached = True
        if self._outer is not None:
            self._outer.reach()

    async def send(self, message: Message) -> None:
        """Pass on what is answered by whom it was freed for."""
        self._reached = self._reached or (not self._refused and self._is_there(message))
        if self._reached:
            await self._send(message)
        elif not self._refused:
            self._refused = True
            await self._refuse()


def reached(scope: Scope) -> None:
    """Say that an admin, which guards itself, has got a request, which may have been freed for it."""
    freed = scope.get(FREED_KEY)
    if isinstance(freed, Gate):
        freed.reach()
