"""Short plays for two instances and a channel, of what is rare where everything happens at random."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from .instance import Instance
from .model import KEYS
from .rules import INSTANCES, SEEDS, ChannelRules, chooser

HEARD = st.sampled_from(
    ["told", "told and cut off", "told after a break", "missed", "touched", "touched and cut off", "flushed"]
)


class Scenes(ChannelRules):
    """What an instance hears, and what it misses, at the wrong moment."""

    @rule(
        instance=INSTANCES,
        key=st.sampled_from(KEYS),
        what=st.sampled_from(["", "lost", "trimmed", "replaced", "begun anew", "broken", "behind"]),
        everybody=st.booleans(),
        rounds=st.integers(0, 4),
        seed=SEEDS,
    )
    def miss(self, instance: int, key: tuple[str, str], what: str, rounds: int, seed: int, *, everybody: bool) -> None:
        """A user who is known is invalidated elsewhere; of that an instance hears late, or only that it missed it."""
        world = self.world
        one, channel = world.instances[instance], world.server.channel
        world.source = "well"
        world.redis(down=False)
        # Twice: of a generation that a look has made it is told that it was touched.
        for _ in range(2):
            one.ear.hear()
            one.ask(key)
            self.finish(seed)
        before = channel.place
        # Cut off, it is not told either that the generation was touched.
        if what == "broken" or seed % 2:
            one.ear.break_off()
        world.version += 1
        world.instances[1 - instance].invalidate(None if everybody else key[1])
        self.finish(seed)
        world.pass_time(0.25)
        self.finish(seed)
        match what:
            case "lost":
                channel.stream[:] = [each for each in channel.stream if each.place <= before]
            case "trimmed":
                channel.stream[:-1] = []
            case "replaced":
                channel.stream[:] = [each for each in channel.stream if each.place <= before]
                world.instances[1 - instance].invalidate("nobody")
                self.finish(seed)
            case "begun anew":
                channel.lose_state()
                for _ in range(seed % 3):
                    world.instances[1 - instance].invalidate("nobody")
                    self.finish(seed)
        for _ in range(rounds):
            one.ear.connect()
            one.ear.send(beats=True)
            one.ear.carry_out()
            one.ear.deliver()
            if what != "behind":
                one.ear.read(gives_up=True)
                while one.ear.deliver():
                    pass
            one.peek(key)
            world.pass_time(0.9)
            one.peek(key)

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), answered=st.booleans(), what=HEARD, seed=SEEDS)
    def hear_during_a_look(self, instance: int, key: tuple[str, str], what: str, seed: int, *, answered: bool) -> None:
        """A user whom Redis has is looked up, and invalidated elsewhere, and that instance hears of it."""
        self._hear_during(instance, key, int(answered), what, seed, stored=True)

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), at=st.integers(2, 4), what=HEARD, seed=SEEDS)
    def hear_during_a_load(self, instance: int, key: tuple[str, str], at: int, what: str, seed: int) -> None:
        """The same while he is loaded: the source is asked, or has answered, or Redis has compared and not said so."""
        self._hear_during(instance, key, at, what, seed, stored=False)

    def _hear_during(self, instance: int, key: tuple[str, str], at: int, what: str, seed: int, *, stored: bool) -> None:
        world = self.world
        one, other = world.instances[instance], world.instances[1 - instance]
        self.all_well(seed)
        other.ask(key)
        self.finish(seed)
        one.ear.hear()
        one.cache.memory.drop(key[1])
        if not stored:
            world.server.values.pop(key, None)
        one.ask(key)
        self.step(at, seed)
        before = world.gates.hold()
        world.version += 1
        if what in ("missed", "told after a break"):
            one.ear.break_off()
        if what.startswith("touched"):
            world.server.renew(key[1], 60_000, world.version)
        else:
            other.invalidate(key[1])
            self.finish(seed)
        if what == "missed":
            world.server.channel.stream.clear()
        if what == "flushed":
            world.server.flush()
            world.lost.append(world.loop.time())
        one.ear.hear()
        if what.endswith("cut off"):
            world.redis(down=True)
        world.gates.give_back(before)
        self.finish(seed)
        world.redis(down=False)
        one.ear.connect()
        self.hear_and_peek(instance, key)

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), seed=SEEDS)
    def follow_anew(self, instance: int, key: tuple[str, str], seed: int) -> None:
        """An instance has lost the channel, a user is looked up, and invalidated before it is followed again."""
        world = self.world
        one = world.instances[instance]
        self.all_well(seed)
        one.ear.hear()
        world.server.flush()
        world.lost.append(world.loop.time())
        one.ear.deliver()
        one.ask(key)
        self.finish(seed)
        one.ear.break_off()
        world.version += 1
        world.instances[1 - instance].invalidate(key[1])
        self.finish(seed)
        world.pass_time(0.25)
        self.hear_and_peek(instance, key)

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), seconds=st.sampled_from([0.5, 1.4]), seed=SEEDS)
    def be_answered_late(self, instance: int, key: tuple[str, str], seconds: float, seed: int) -> None:
        """The state of the channel travels for long, and a user is invalidated elsewhere meanwhile."""
        world = self.world
        one = self.keep(instance, key, seed)
        one.ear.hear()
        one.ear.send(beats=True)
        one.ear.carry_out()
        world.version += 1
        world.instances[1 - instance].invalidate(key[1])
        self.finish(seed)
        world.pass_time(0.25)
        world.loop.settle(chooser(seed))
        world.pass_time(seconds)
        one.ear.deliver()
        for _ in range(3):
            world.pass_time(0.6)
            one.peek(key)

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), late=st.booleans(), seed=SEEDS)
    def fail_to_tell(self, instance: int, key: tuple[str, str], seed: int, *, late: bool) -> None:
        """An invalidation is given up for lost, and is carried out, before that or after."""
        world = self.world
        one = world.instances[instance]
        self.all_well(seed)
        one.ask(key)
        self.finish(seed)
        one.ear.hear()
        world.version += 1
        one.invalidate(key[1])
        self.step(0 if late else 1, seed)
        world.redis(down=True)
        self.finish(seed)
        world.redis(down=False)
        one.ask(key)
        self.finish(seed)
        while late and world.server.late:
            world.server.late.pop(0)()
        self.hear_and_peek(instance, key)

    @rule(key=st.sampled_from(KEYS), at=st.integers(1, 3), dies=st.booleans(), seed=SEEDS)
    def expect(self, key: tuple[str, str], at: int, seed: int, *, dies: bool) -> None:
        """An instance hears that a user will be invalidated, and looks him up before it has happened."""
        world = self.world
        one, other = world.instances
        self.all_well(seed)
        one.ask(key)
        self.finish(seed)
        one.ear.hear()
        world.version += 1
        other.tier.in_steps = True
        other.invalidate(key[1])
        self.step(2, seed)
        before = world.gates.hold()
        one.ear.hear()
        one.ask(key)
        self.finish(seed)
        if dies:
            one.ear.break_off()
        world.gates.give_back(before)
        self.step(at, seed)
        one.peek(key)
        if dies:
            world.redis(down=True)
            self.finish(seed)
            world.redis(down=False)
        self.hear_and_peek(0, key)
        other.tier.in_steps = world.in_steps

    @rule(
        instance=INSTANCES,
        key=st.sampled_from(KEYS),
        at=st.integers(0, 5),
        stored=st.booleans(),
        seconds=st.sampled_from([1.0, 2.5, 10.5]),
        seed=SEEDS,
    )
    def be_stopped(
        self, instance: int, key: tuple[str, str], at: int, seconds: float, seed: int, *, stored: bool
    ) -> None:
        """An instance is stopped while it looks a user up; he is invalidated elsewhere, and asked for afterwards."""
        world = self.world
        one, other = world.instances[instance], world.instances[1 - instance]
        self.all_well(seed)
        other.ask(key)
        self.finish(seed)
        one.cache.memory.drop(key[1])
        if not stored:
            world.server.values.pop(key, None)
        one.ask(key)
        self.step(at % 2 if stored else at, seed)
        before = world.gates.hold()
        self.invalidate(1 - instance, key[1], seed)
        world.pass_time(seconds)
        one.ask(key)
        self.run(seed % 10, seed)
        world.gates.give_back(before)
        self.finish(seed)
        one.peek(key)

    def keep(self, instance: int, key: tuple[str, str], seed: int) -> Instance:
        """Repair all, let an instance that is subscribed keep a user, and return the instance."""
        one = self.world.instances[instance]
        self.all_well(seed)
        one.ear.hear()
        one.ask(key)
        self.finish(seed)
        return one

    def invalidate(self, instance: int, name: str, seed: int) -> None:
        """Let an invalidation be told, and wait for nobody."""
        self.world.version += 1
        self.world.instances[instance].invalidate(name)
        self.finish(seed)
        self.world.pass_time(0.25)
        self.world.loop.settle(chooser(0))
