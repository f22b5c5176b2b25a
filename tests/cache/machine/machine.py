"""The state machine: what may happen to two instances, in any order, with every await anywhere."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from .model import KEYS, Violation
from .rules import ANY_NAME, INSTANCES, SEEDS, chooser
from .transactions import TransactionScenes

STEPS = st.integers(0, 40)

TOTAL: Counter[str] = Counter()
"""What all machines of this process have done."""


class Machine(TransactionScenes):
    """Callers come, go and are cancelled; users are invalidated; the source, Redis and the clock do as they like."""

    def __init__(self) -> None:
        super().__init__()
        TOTAL["machines"] += 1

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), callers=st.integers(1, 3), steps=STEPS, seed=SEEDS)
    def get(self, instance: int, key: tuple[str, str], callers: int, steps: int, seed: int) -> None:
        """One or more callers ask for a user."""
        for _ in range(callers):
            self.world.instances[instance].ask(key)
        self.run(steps, seed)

    @rule(instance=INSTANCES, keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=6), seed=SEEDS)
    def get_to_the_end(self, instance: int, keys: list[tuple[str, str]], seed: int) -> None:
        """Callers ask, and everything answers."""
        for key in keys:
            self.world.instances[instance].ask(key)
        self.let_all_through(seed)

    @rule(instance=INSTANCES, name=ANY_NAME, everybody=st.booleans(), seed=SEEDS)
    def invalidate_to_the_end(self, instance: int, name: str, *, everybody: bool, seed: int) -> None:
        """An invalidation is told to all, while what was under way before it still is."""
        self.world.version += 1
        before = self.world.gates.hold()
        self.world.instances[instance].invalidate(None if everybody else name)
        self.let_confirm(seed)
        self.world.gates.give_back(before)

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), steps=st.integers(0, 20), seed=SEEDS)
    def peek(self, instance: int, key: tuple[str, str], steps: int, seed: int) -> None:
        """A request finds what memory answers by itself."""
        loop = self.world.loop
        loop.call_soon(self.world.instances[instance].peek, key)
        loop.settle(chooser(seed)) if steps > 15 else self.run(steps, seed)

    @rule(steps=st.integers(1, 80), seed=SEEDS)
    def go_on(self, steps: int, seed: int) -> None:
        """Whatever is ready runs, in some order."""
        self.run(steps, seed)

    @rule(count=st.integers(1, 4), place=st.integers(0, 20), steps=STEPS, seed=SEEDS)
    def let_through(self, count: int, place: int, steps: int, seed: int) -> None:
        """Something outside is carried out, or answered."""
        for each in range(count):
            self.world.gates.open(place + each)
            self.run(steps, seed + each)

    @rule(instance=INSTANCES, name=ANY_NAME, steps=STEPS, seed=SEEDS)
    def change_and_invalidate(self, instance: int, name: str, steps: int, seed: int) -> None:
        """The database changes, and whoever changed it says so."""
        self.world.version += 1
        self.world.instances[instance].invalidate(name)
        self.run(steps, seed)

    @rule(instance=INSTANCES, steps=STEPS, seed=SEEDS)
    def change_and_clear(self, instance: int, steps: int, seed: int) -> None:
        """Everything changes, and everybody is invalidated."""
        self.world.version += 1
        self.world.instances[instance].invalidate(None)
        self.run(steps, seed)

    @rule(asked=st.sampled_from([f"{partition}/{name}" for partition, name in KEYS]))
    def hire_or_dismiss(self, asked: str) -> None:
        """A user becomes unknown to the source, or known again."""
        self.world.unknown ^= {asked}
        self.world.version += 1

    @rule(instance=INSTANCES, place=st.integers(0, 30))
    def cancel(self, instance: int, place: int) -> None:
        """A caller goes away."""
        waiting = [task for task in self.world.instances[instance].callers if not task.done()]
        if waiting:
            waiting[place % len(waiting)].cancel()
            self.world.counts["cancelled callers"] += 1

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), place=st.integers(0, 2), seed=SEEDS)
    def one_of_three_goes_away(self, instance: int, key: tuple[str, str], place: int, seed: int) -> None:
        """Three callers wait for a user nobody has, one of them goes away, and the others are served."""
        one = self.world.instances[instance]
        self.all_well(seed)
        one.cache.memory.drop(key[1])
        self.world.server.values.pop(key, None)
        callers = [one.ask(key) for _ in range(3)]
        self.step(2, seed)
        callers[place].cancel()
        self.finish(seed)

    @rule(state=st.sampled_from(["well", "well", "well", "down", "odd"]))
    def source(self, state: str) -> None:
        """The source breaks, or recovers."""
        self.world.source = state

    @rule(down=st.sampled_from([False, False, True]))
    def redis(self, *, down: bool) -> None:
        """Redis cannot be reached, or can again."""
        self.world.redis(down=down)
        self.world.counts["Redis cut off" if down else "Redis reached again"] += 1

    @rule(what=st.sampled_from(["flush", "everyone", "name", "value", "copy", "failover"]), place=st.integers(0, 5))
    def lose(self, what: str, place: int) -> None:
        """Redis forgets, evicts, or is replaced by an older copy of itself."""
        server, key = self.world.server, KEYS[place]
        self.world.counts[f"Redis: {what}"] += 1
        match what:
            case "flush":
                server.flush()
                self.world.lost.append(self.world.loop.time())
            case "everyone":
                server.lose(None)
            case "name":
                server.lose(key[1])
            case "value":
                server.values.pop(key, None)
            case "copy":
                self.world.older = server.snapshot()
            case _:
                server.fail_over_to(self.world.older)
                self.world.replaced.append(self.world.loop.time())

    @rule(
        seconds=st.sampled_from([0.1, 0.5, 1.0, 2.0, 2.5, 5.0, 8.5, 12.0, 60.0, 310.0]),
        steps=st.integers(0, 60),
        seed=SEEDS,
    )
    def time_passes(self, seconds: float, steps: int, seed: int) -> None:
        """The clock goes on, or the process was stopped for a while."""
        self.world.pass_time(seconds)
        self.run(steps, seed)

    @rule(
        instance=INSTANCES,
        key=st.sampled_from(KEYS),
        seconds=st.sampled_from([2.5, 8.5, 10.5, 12.5, 17.5]),
        invalidated=st.booleans(),
        seed=SEEDS,
    )
    def outage(self, instance: int, key: tuple[str, str], seconds: float, seed: int, *, invalidated: bool) -> None:
        """A user who is known is asked for late, while the source is down, and again when he was invalidated."""
        self.world.source = "well"
        self.get_to_the_end(instance, [key], seed)
        self.world.pass_time(seconds)
        self.world.source = "down"
        self.get_to_the_end(instance, [key], seed + 1)
        if invalidated:
            self.world.instances[instance].ear.break_off()
            self.invalidate_to_the_end(1 - instance, key[1], everybody=False, seed=seed)
            self.world.pass_time(2.5)
            self.get_to_the_end(instance, [key], seed + 2)

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), seconds=st.sampled_from([0.6, 2.5, 4.0]), seed=SEEDS)
    def slow_source(self, instance: int, key: tuple[str, str], seconds: float, seed: int) -> None:
        """A user is invalidated, mostly elsewhere, while the source takes its time, and somebody else asks too."""
        world = self.world
        world.source = "well"
        self.get_to_the_end(instance, [key], seed)
        world.pass_time(10.5)
        world.instances[instance].ask(key)
        for _ in range(2):
            world.loop.settle(chooser(seed))
            world.gates.open(0)
        world.loop.settle(chooser(seed))
        where = instance if seed % 4 == 0 else 1 - instance
        self.invalidate_to_the_end(where, key[1], everybody=bool(seed % 3 == 0), seed=seed)
        world.pass_time(seconds)
        world.instances[instance].ask(key)
        world.source = "down" if seed % 2 else "well"
        self.run(seed % 40, seed)

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), seed=SEEDS)
    def nobody_waits_any_more(self, instance: int, key: tuple[str, str], seed: int) -> None:
        """The only caller goes away, the user is invalidated, and only then the source answers."""
        world = self.world
        world.source = "well"
        caller = world.instances[instance].ask(key)
        for _ in range(2):
            world.loop.settle(chooser(seed))
            world.gates.open(0)
        world.loop.settle(chooser(seed))
        caller.cancel()
        self.invalidate_to_the_end(instance, key[1], everybody=bool(seed % 3 == 0), seed=seed)
        self.let_all_through(seed)
        world.instances[instance].peek(key)

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), answered=st.booleans(), seed=SEEDS)
    def asked_while_redis_is_told(self, instance: int, key: tuple[str, str], seed: int, *, answered: bool) -> None:
        """An invalidation is on its way to Redis, and a look that began after it arrives there first."""
        world = self.world
        world.source = "well"
        self.get_to_the_end(instance, [key], seed)
        self.let_all_through(seed)
        self.change_and_invalidate(instance, key[1], 0, seed)
        world.loop.settle(chooser(seed))
        world.instances[instance].ask(key)
        for place in (1, 1, 0, 0) if answered else (1, 0, 0, 0):
            world.loop.settle(chooser(seed))
            world.gates.open(place)
        world.loop.settle(chooser(seed))
        world.instances[instance].peek(key)

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), seed=SEEDS)
    def cut_off_after_hearing(self, instance: int, key: tuple[str, str], seed: int) -> None:
        """An instance hears that a user was invalidated, cannot load him, and is cut off from Redis."""
        world = self.world
        world.source = "well"
        world.redis(down=False)
        self.get_to_the_end(instance, [key], seed)
        self.invalidate_to_the_end(1 - instance, key[1], everybody=False, seed=seed)
        world.pass_time(2.5)
        world.source = "down"
        self.get_to_the_end(instance, [key], seed)
        world.redis(down=True)
        self.get_to_the_end(instance, [key], seed)
        world.redis(down=bool(seed % 2))

    @rule(instance=INSTANCES, luck=st.integers(0, 7), hears=st.booleans(), seed=SEEDS)
    def restart(self, instance: int, luck: int, seed: int, *, hears: bool) -> None:
        """Now and then an instance is shut down, and comes back with an empty memory, in the list or not yet."""
        if luck:
            return
        self.close(instance, seed)
        self.world.instances[instance].open(hears=hears)
        self.run(30, seed)
        self.world.counts["restarts"] += 1

    @invariant()
    def promises(self) -> None:
        """Nothing was broken so far."""
        TOTAL["rules"] += 1
        self.world.check()

    def teardown(self) -> None:
        """Everything ends: nobody waits for ever, nothing is left behind, and every caller had an answer."""
        try:
            for number in range(len(self.world.instances)):
                self.close(number, number)
            left = [task for task in asyncio.all_tasks(self.world.loop) if not task.done()]
            if left:
                raise Violation(f"{len(left)} tasks are left")
            self.world.check()
        finally:
            TOTAL.update(self.world.counts)
            TOTAL["steps of the loop"] += self.world.loop.steps
            self.world.loop.close()
