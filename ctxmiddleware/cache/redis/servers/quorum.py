"""Asking several servers the same at once, and going on with what enough of them say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio

A = TypeVar("A")
P = TypeVar("P")


async def heard(places: Sequence[P], ask: Callable[[P], Awaitable[A]], *, enough: int, seconds: float) -> list[A]:
    """Return what was answered: as soon as `enough` have, or all have or cannot, or the time is over.

    Args:
        places: whom to ask, all at once.
        ask: asks one of them; whatever it raises is no answer.
        enough: answers after which nobody else is waited for.
        seconds: how long anybody is waited for.

    Raises:
        Exception: nobody answered; it is what the first of them failed with, or a TimeoutError.
    """
    answers: list[A] = []
    failures: list[Exception] = []
    with anyio.move_on_after(seconds):
        async with anyio.create_task_group() as tasks:

            async def one(place: P) -> None:
                try:
                    answers.append(await ask(place))
                except Exception as error:  # noqa: BLE001 - the others may answer
                    failures.append(error)
                if len(answers) >= enough:
                    tasks.cancel_scope.cancel()

            for place in places:
                tasks.start_soon(one, place)
    if not answers:
        raise failures[0] if failures else TimeoutError("nobody answered in time")
    return answers
