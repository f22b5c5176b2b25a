"""Users who are looked up all the time, while servers are lost and replaced."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from ctxmiddleware.cache.base import Key
from tests.cache.rig import Instance
from tests.waiting import eventually_async

USERS: list[Key] = [("", f"user{number}") for number in range(60)]
# Seconds a failover may take on a slow machine.
FAILED_OVER = 60.0


class Traffic:
    """Users who are looked up all the time, and what they got.

    Args:
        one: by which instance.
    """

    def __init__(self, one: Instance) -> None:
        self._one = one
        self.got: list[tuple[Key, str | None, str]] = []

    async def flow(self) -> None:
        """Look everybody up again and again, each time after what memory had is trusted no more."""
        while True:
            self._one.clock.advance(6)
            async with anyio.create_task_group() as callers:
                for key in USERS:
                    callers.start_soon(self._look, key)
            await anyio.sleep(0.01)

    async def _look(self, key: Key) -> None:
        # An exception here would end the test: no look-up may fail.
        found = await self._one.get(key)
        self.got.append((key, found.entry.value, found.origin))

    async def more(self) -> list[tuple[Key, str | None, str]]:
        """Return what is got by look-ups that begin from now on."""
        await self.round()
        self.got.clear()
        await self.round()
        return list(self.got)

    def origins(self) -> set[str]:
        """Return which tiers the last answers came from, memory left out.

        The channel may prove, at any moment, that memory is to be trusted again.
        """
        return origins(self.got[-len(USERS) :])

    async def round(self) -> None:
        """Wait until everybody was looked up once more."""
        begun = len(self.got)
        await eventually_async(lambda: len(self.got) >= begun + 2 * len(USERS), timeout=FAILED_OVER)


def origins(got: Sequence[tuple[Key, str | None, str]]) -> set[str]:
    """Return which tiers answers came from, memory left out."""
    return {origin for _, _, origin in got} - {"memory"}


def is_heard(one: Instance) -> bool:
    """Return whether an instance hears what the others invalidate."""
    return one.redis is not None and one.redis.is_heard()
