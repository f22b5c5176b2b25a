"""Users asked for one by one, a few at a time, where they cannot be asked for together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

import anyio

from ..errors import SourceUnavailable
from .exchange import OutOfTime

A = TypeVar("A")
E = TypeVar("E", bound=Exception)
K = TypeVar("K")

AT_ONCE: Final = 8


async def in_half_the_time(call: Callable[[], Awaitable[A]]) -> A:
    """Make a call that may take half of the time that is left to this task, so that the other half is for the others.

    Raises:
        OutOfTime: it took longer.
    """
    left = anyio.current_effective_deadline() - anyio.current_time()
    with anyio.move_on_after(left / 2):
        return await call()
    raise OutOfTime(f"the source did not answer within {left / 2:.2g} s")


async def singly(
    users: Iterable[K],
    ask: Callable[[K], Awaitable[A]],
    found: dict[K, A | E],
    *,
    in_vain: int,
    errors: type[E],
    counts: type[Exception] = SourceUnavailable,
) -> E | None:
    """Ask for each user and put the answers, and errors, where they are found; return what ended it early, if anything.

    Args:
        users: whom to ask for.
        ask: asks for one.
        found: where the answers go, as they come: they are kept when the time of the whole runs out.
        in_vain: calls in a row without an answer after which the next ones would wait for nothing.
        errors: which errors are one user's; others end it all.
        counts: which of them are no answer.
    """
    waiting = iter(users)
    failed_in_a_row = 0
    ends: E | None = None

    async def work() -> None:
        nonlocal failed_in_a_row, ends
        for user in waiting:
            if ends is not None:
                return
            try:
                found[user] = await in_half_the_time(lambda user=user: ask(user))  # type: ignore[misc]  # a bound value
                failed_in_a_row = 0
            except errors as error:
                found[user] = error
                failed_in_a_row = failed_in_a_row + 1 if isinstance(error, counts) else 0
                if failed_in_a_row >= in_vain or (isinstance(error, SourceUnavailable) and error.outage):
                    ends = error

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(work)
    return ends
