"""What may happen to the channel between instances: each hears late, in part, or not at all."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from .model import NAMES, Violation
from .world import World

SEEDS = st.integers(0, 2**32 - 1)
INSTANCES = st.integers(0, 1)
ANY_NAME = st.sampled_from(NAMES)
MOVES = st.sampled_from(["connect", "ask", "ask for news", "carry out", "carry out", "give up", "deliver", "deliver"])


class ChannelRules(RuleBasedStateMachine):
    """The channel's part of the machine."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def run(self, steps: int, seed: int) -> None:
        """Let so many callbacks run, in an order that a seed stands for."""
        choose = chooser(seed)
        for _ in range(steps):
            if not self.world.loop.step(choose):
                return

    def finish(self, seed: int) -> None:
        """Let everything outside answer, and nobody hear of it."""
        choose = chooser(seed)
        for _ in range(60):
            self.world.loop.settle(choose)
            if not self.world.gates:
                return
            self.world.gates.open(choose(len(self.world.gates)))

    @initialize(in_steps=st.booleans())
    def choose(self, *, in_steps: bool) -> None:
        """Generations and channel are on one server, or on two of a cluster."""
        self.world.in_steps = in_steps
        for each in self.world.instances:
            each.tier.in_steps = in_steps

    @rule(instance=INSTANCES, moves=st.lists(MOVES, min_size=1, max_size=8), steps=st.integers(0, 10), seed=SEEDS)
    def move(self, instance: int, moves: list[str], steps: int, seed: int) -> None:
        """The connection to the channel goes on by some steps, between those of everything else."""
        ear = self.world.instances[instance].ear
        for each in moves:
            match each:
                case "connect":
                    ear.connect()
                case "ask" | "ask for news":
                    ear.send(beats=each == "ask")
                case "carry out":
                    ear.carry_out()
                case "give up":
                    ear.read(gives_up=True)
                case _:
                    ear.deliver()
            self.run(steps, seed)

    @rule(instance=INSTANCES)
    def hear(self, instance: int) -> None:
        """An instance hears whatever there is."""
        self.world.instances[instance].ear.hear()

    @rule()
    def hear_all(self) -> None:
        """All do, and those who wait for it hear that they have."""
        self.world.hear()

    @rule(instance=INSTANCES)
    def break_off(self, instance: int) -> None:
        """The connection to the channel is lost, with all that is on it."""
        self.world.instances[instance].ear.break_off()
        self.world.counts["connections lost"] += 1

    @rule(place=st.integers(0, 5), trimmed=st.booleans())
    def lose_news(self, place: int, *, trimmed: bool) -> None:
        """An announcement is taken out of the stream, or all up to it."""
        stream = self.world.server.channel.stream
        if stream:
            place %= len(stream)
            del stream[0 if trimmed else place : place + 1]
            self.world.counts["announcements lost"] += 1

    @rule()
    def lose_the_channel(self) -> None:
        """The state of the channel is evicted."""
        self.world.server.channel.lose_state()

    @rule()
    def lose_the_list(self) -> None:
        """The list of instances is evicted."""
        self.world.server.channel.lose_list()

    @rule(name=ANY_NAME, steps=st.integers(0, 20), seed=SEEDS)
    def renew_by_hand(self, name: str, steps: int, seed: int) -> None:
        """Somebody puts a new generation in force and announces nothing; who is connected hears that it was touched."""
        world = self.world
        world.version += 1
        world.server.renew(name, 60_000, world.version)
        self.run(steps, seed)

    @rule(place=st.integers(0, 5))
    def arrive_late(self, place: int) -> None:
        """What was given up for lost is carried out all the same."""
        late = self.world.server.late
        if late and not self.world.server.is_down:
            late.pop(place % len(late))()
            self.world.counts["commands carried out late"] += 1

    def all_well(self, seed: int) -> None:
        """Source and Redis answer, and whatever is under way ends."""
        self.world.source = "well"
        self.world.redis(down=False)
        self.finish(seed)

    @rule(seed=SEEDS)
    def let_all_through(self, seed: int) -> None:
        """Everything outside answers, in some order."""
        choose = chooser(seed)
        for _ in range(60):
            self.world.loop.settle(choose)
            if not self.world.gates:
                return
            self.world.gates.open(choose(len(self.world.gates)))

    def let_confirm(self, seed: int) -> None:
        """Deliver the confirmations that invalidations wait for, or let their time pass."""
        for _ in range(3):
            self.let_all_through(seed)
            if not any(not task.done() for one in self.world.instances for task in one.telling):
                return
            if seed % 2:
                self.world.hear()
            else:
                self.world.pass_time(0.25)
            self.world.loop.settle(chooser(seed))

    def step(self, count: int, seed: int) -> None:
        """Let the first who waits outside go on, so many times."""
        for _ in range(count):
            self.world.loop.settle(chooser(seed))
            self.world.gates.open(0)
        self.world.loop.settle(chooser(seed))

    def hear_and_peek(self, instance: int, key: tuple[str, str]) -> None:
        """Go on hearing for longer than one proof is good for, and ask memory."""
        one = self.world.instances[instance]
        one.peek(key)
        for _ in range(4):
            self.world.pass_time(0.8)
            # Whoever waited for a confirmation has waited long enough.
            self.world.loop.settle(chooser(0))
            one.ear.hear()
            one.peek(key)

    def close(self, instance: int, seed: int) -> None:
        """Shut an instance down, and let each of its callers come to an end."""
        one, loop = self.world.instances[instance], self.world.loop
        life = one.close()
        for _ in range(8):
            loop.settle(chooser(seed))
            if life is None or life.done():
                break
            loop.now = max(loop.now, loop.next_timer() or loop.now)
        if life is None or not life.done():
            raise Violation("an instance does not end")
        loop.settle(chooser(seed))
        if len(one.cache.flights):
            raise Violation("flights are left after the end")
        hanging = [task for task in one.callers if not task.done()]
        for _ in range(8):
            if not hanging:
                break
            while self.world.gates:
                self.world.gates.open(0)
            loop.now += 0.25
            loop.settle(chooser(seed))
            hanging = [task for task in hanging if not task.done()]
        if hanging:
            raise Violation(f"{len(hanging)} callers are left waiting for ever")
        for task in one.callers:
            if not task.cancelled() and task.exception() is not None:
                raise Violation(f"a caller got {task.exception()!r}")
        one.callers.clear()


def chooser(seed: int) -> Callable[[int], int]:
    """Return what picks the next of those that are ready: sometimes as asyncio would, mostly not."""
    return (lambda count: 0) if seed % 5 == 0 else random.Random(seed).randrange
