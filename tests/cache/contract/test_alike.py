"""Whether any history of events gets the same answers from the real tier and from the state machine's."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from ctxmiddleware.cache.base import Fence, Key, Stored
from ctxmiddleware.cache.shared import Look, SharedTierFailed, Storing
from tests.backends import ASYNCIO
from tests.matrix import some
from tests.waiting import eventually_async

from .sides import Side, connected, fake, real

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", [ASYNCIO])]

KEYS: list[Key] = [(partition, name) for partition in ("", "acme") for name in ("ada", "bob", "cy", "dan")]
# Time passes by whole units of so many seconds and ends between them, so that no end, and no age that is told in them,
# depends on how fast the machine is: what an event takes by itself would have to be half of one.
UNIT = 4
KEEP_MS, RENEWED_MS = 20_250 * UNIT, 26_600 * UNIT
Event: TypeAlias = Callable[[Side, "Diary"], Any]


class Diary:
    """The answers of one tier, with every generation called by the order in which its name had it."""

    def __init__(self) -> None:
        self.lines: list[object] = []
        self.fences: list[tuple[Key, Fence]] = []
        self._names: dict[tuple[str, bytes], int] = {}

    def looked(self, keys: list[Key], looks: list[Look[str] | None]) -> None:
        """Write down what was found."""
        for key, found in zip(keys, looks, strict=True):
            if found is None:
                self.lines.append((key, None))
                continue
            self.fences.append((key, found.fence))
            fence = [self._called(f"{part}/{key[1]}", token) for part, token in zip("en", found.fence, strict=True)]
            stored = found.stored
            told = stored and (stored.value, stored.origin, stored.lifetime, round(stored.age / UNIT))
            ago = None if found.moved_ago == math.inf else round(found.moved_ago / UNIT)
            self.lines.append((key, fence, told, ago))

    def _called(self, whose: str, token: bytes) -> int:
        held = [name for name in self._names if name[0] == whose]
        return self._names.setdefault((whose, token), len(held))


def _event(rng: random.Random) -> tuple[str, Event]:
    """Draw an event; both tiers get the same one."""
    kind = rng.choice(["look"] * 6 + ["store"] * 8 + ["invalidate"] * 3 + ["time"] * 4 + ["lose", "flush", "outage"])
    keys = rng.sample(KEYS, rng.randint(1, 5))
    name = rng.choice([None, *[key[1] for key in keys]])
    number, seconds = rng.random(), rng.choice([1, 3, 10, 30]) * UNIT

    async def look(side: Side, diary: Diary) -> None:
        diary.looked(keys, await (side.one if number < 0.5 else side.other).look(keys, KEEP_MS))

    async def store(side: Side, diary: Diary) -> None:
        late = diary.fences[-1 - int(number**3 * len(diary.fences)) :][:3]
        unique = dict(late)
        values = [
            Storing(key, fence, Stored(f"{key} {number}", "db", 20.0 * UNIT, float(seconds)), KEEP_MS)
            for key, fence in unique.items()
        ]
        diary.lines.append((list(unique), await side.one.store(values)))

    async def invalidate(side: Side, diary: Diary) -> None:
        await side.other.invalidate(name, RENEWED_MS)

    async def outage(side: Side, diary: Diary) -> None:
        side.cut_off()
        await look(side, diary)
        await store(side, diary)
        with pytest.raises(SharedTierFailed):
            await invalidate(side, diary)
        await side.reach_again()

    async def lose(side: Side, diary: Diary) -> None:
        side.lose(name)

    async def flush(side: Side, diary: Diary) -> None:
        side.flush()

    async def time(side: Side, diary: Diary) -> None:
        side.pass_time(seconds)

    return kind, locals()[kind]


def _history(seed: int, length: int) -> list[tuple[str, Event]]:
    rng = random.Random(seed)
    history = [_event(rng) for _ in range(length)]
    for place in (length // 2, length):
        history.insert(place, ("fail over", _fail_over))
    history.insert(length // 3, ("snapshot", _snapshot))
    return [("look", _look_at_all), *history]


async def _snapshot(side: Side, diary: Diary) -> None:
    side.snapshot()


async def _fail_over(side: Side, diary: Diary) -> None:
    side.fail_over()
    # Before anything else is lost: to an instance that connects later it would be another server once more.
    await eventually_async(lambda: connected(side))
    await _look_at_all(side, diary)


async def _look_at_all(side: Side, diary: Diary) -> None:
    diary.looked(KEYS, await side.one.look(KEYS, KEEP_MS))


@pytest.mark.parametrize("seed", some(range(8), 2))
async def test_any_history_is_answered_alike(seed: int) -> None:
    """Generations, values, ages, marks and what was kept agree after each of a hundred random events."""
    async with fake() as made_up, real() as true:
        diaries = Diary(), Diary()
        told: list[str] = []
        for kind, event in _history(seed, 100):
            told.append(kind)
            for side, diary in zip((made_up, true), diaries, strict=True):
                side.pass_time(0)
                await event(side, diary)
            assert diaries[0].lines == diaries[1].lines, told
            for diary in diaries:
                diary.lines.clear()
        assert diaries[0].fences
