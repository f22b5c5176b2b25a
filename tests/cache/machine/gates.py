"""Where awaits wait until the machine lets them through."""

from __future__ import annotations

import asyncio


class Gates:
    """Whatever is outside the cache waits here, before its effect and before its answer, until it is let through."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        self._waiting = [each for each in self._waiting if not each.done()]
        return len(self._waiting)

    async def wait(self) -> None:
        """Wait to be let through."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def open(self, place: int) -> None:
        """Let one through, by its place modulo their number."""
        count = len(self)
        if count:
            self._waiting.pop(place % count).set_result(None)

    def hold(self) -> list[asyncio.Future[None]]:
        """Set those aside who wait now, so that only later ones are let through."""
        aside, self._waiting = self._waiting, []
        return aside

    def give_back(self, aside: list[asyncio.Future[None]]) -> None:
        """Let them wait among the others again."""
        self._waiting = [*aside, *self._waiting]
