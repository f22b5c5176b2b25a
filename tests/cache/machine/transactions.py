"""Short plays of transactions: an invalidation before its COMMIT, and a name that is held around one."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from .lists import ListScenes
from .model import KEYS, POLICY
from .rules import INSTANCES, SEEDS, chooser

HOLDER = b"holder"


class TransactionScenes(ListScenes):
    """Rules of loads between an invalidation and the COMMIT of its change."""

    @rule(
        instance=INSTANCES,
        key=st.sampled_from(KEYS),
        everybody=st.booleans(),
        lost=st.sampled_from(["", "", "mark", "flush", "restart", "unheard"]),
        commits=st.sampled_from([True, True, False]),
        seconds=st.sampled_from([0.0, 0.5, 1.5, 1.9]),
        seed=SEEDS,
    )
    def commit_after_it(
        self,
        instance: int,
        key: tuple[str, str],
        seconds: float,
        seed: int,
        *,
        everybody: bool,
        lost: str,
        commits: bool,
    ) -> None:
        """A transaction invalidates, is read by others, and commits within `settle`, or is rolled back."""
        world = self.world
        self._begin(key, seed)
        if lost == "unheard":
            world.instances[1 - instance].ear.break_off()
        world.instances[instance].invalidate(None if everybody else key[1])
        self.let_confirm(seed)
        if lost == "mark":
            world.server.moved.clear()
            world.unmarked.append(world.loop.time())
        elif lost:
            world.server.flush()
            world.lost.append(world.loop.time())
        if lost == "restart":
            self.close(1 - instance, seed)
            world.instances[1 - instance].open()
            world.loop.settle(chooser(seed))
        if lost == "unheard":
            world.hear()
        self._read_by_all(key, seed)
        world.pass_time(seconds)
        self._read_by_all(key, seed)
        if commits:
            world.version += 1
        self._read_by_all(key, seed)
        world.pass_time(POLICY.settle)
        self._read_by_all(key, seed)
        world.pass_time(POLICY.settle)
        world.hear()
        self._read_by_all(key, seed)

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), at=st.integers(2, 4), seed=SEEDS)
    def load_over_the_end(self, instance: int, key: tuple[str, str], at: int, seed: int) -> None:
        """A load begins within `settle`, the transaction commits, and a caller comes after the end of that time."""
        world = self.world
        one = world.instances[instance]
        self._begin(key, seed)
        one.invalidate(key[1])
        self.let_confirm(seed)
        world.server.values.pop(key, None)
        one.cache.memory.drop(key[1])
        one.ask(key)
        self.step(at, seed)
        world.version += 1
        world.pass_time(POLICY.settle + 0.25)
        one.ask(key)
        self.finish(seed)
        one.peek(key)

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), seconds=st.sampled_from([1.0, 5.0, 20.0]), seed=SEEDS)
    def hold(self, instance: int, key: tuple[str, str], seconds: float, seed: int) -> None:
        """A name is held around a long transaction: no instance keeps what it loads, and its end invalidates."""
        world = self.world
        one = world.instances[instance]
        self._begin(key, seed)
        one.cache.settling.hold([key[1]])
        held = world.loop.create_task(one.cache.hold([key[1]], HOLDER))
        self.finish(seed)
        one.invalidate(key[1])
        self.let_confirm(seed)
        world.hear()
        world.pass_time(seconds)
        self._read_by_all(key, seed)
        if held.done() and held.exception() is None and world.server.is_held(key[1]):
            self._is_kept_by_none(key)
        world.version += 1
        one.invalidate(key[1])
        self.let_confirm(seed)
        one.cache.settling.release([key[1]])
        let_go = world.loop.create_task(one.cache.let_go([key[1]], HOLDER))
        self._read_by_all(key, seed)
        for task in (held, let_go):
            if task.done():
                task.exception()

    def _begin(self, key: tuple[str, str], seed: int) -> None:
        self.all_well(seed)
        self.world.hear()
        self._read_by_all(key, seed)

    def _read_by_all(self, key: tuple[str, str], seed: int) -> None:
        for each in self.world.instances:
            each.ask(key)
        self.finish(seed)

    def _is_kept_by_none(self, key: tuple[str, str]) -> None:
        for each in self.world.instances:
            if each.cache.peek(key) is not None:
                self.world.broken.append(f"instance {each.number} keeps {key}, which is held")
