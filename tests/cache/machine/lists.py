"""Short plays of instances that are in no list, or are missing from a young one, and of tiers that are slow."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from ctxmiddleware.cache.redis.lua.channel import LISTED_MS

from .model import KEYS, POLICY
from .rules import INSTANCES, SEEDS, chooser
from .scenes import Scenes

LISTED = LISTED_MS / 1000
UNLISTED = st.sampled_from(
    ["loaded", "confirmed", "taken from Redis", "joined", "loaded and cut off", "confirmed and cut off"]
)


class ListScenes(Scenes):
    """Rules of the list of instances: entries kept by instances that a report counts in, or does not."""

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), what=UNLISTED, seed=SEEDS)
    def be_in_no_list(self, instance: int, key: tuple[str, str], what: str, seed: int) -> None:
        """An instance was cut off for so long that it is in no list, and asks for a user that is invalidated then."""
        world = self.world
        one, other = world.instances[instance], world.instances[1 - instance]
        self._leave_the_list(instance, seed)
        if what == "joined":
            self._call_without_redis(instance, key, seed)
            before = world.gates.hold()
            self.invalidate(1 - instance, key[1], seed)
            one.ask(key)
            world.gates.give_back(before)
            self.finish(seed)
        else:
            if what == "taken from Redis":
                other.ask(key)
                self.finish(seed)
            for _ in range(2 if what.startswith("confirmed") else 1):
                one.ask(key)
                self.finish(seed)
            self.invalidate(1 - instance, key[1], seed)
        one.peek(key)
        if what.endswith("cut off"):
            world.redis(down=True)
            world.source = "down"
            one.ask(key)
            self.finish(seed)
            self.all_well(seed)
        other.ear.hear()

    def _leave_the_list(self, instance: int, seed: int) -> None:
        """Let the list become so old that none can be missing, and strike an instance off."""
        world = self.world
        one, other = world.instances[instance], world.instances[1 - instance]
        self.all_well(seed)
        other.ear.hear()
        one.ear.break_off()
        world.pass_time(LISTED + POLICY.longest_untold + 1.0)
        self.finish(seed)
        other.ear.hear()

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), registers=st.booleans(), stored=st.booleans(), seed=SEEDS)
    def look_up_in_no_list(
        self, instance: int, key: tuple[str, str], seed: int, *, registers: bool, stored: bool
    ) -> None:
        """The same while the user is looked up; it asks again, or is listed once more before Redis has answered."""
        world = self.world
        one, other = world.instances[instance], world.instances[1 - instance]
        self._leave_the_list(instance, seed)
        for each in (other, one) if stored else (one,):
            each.ask(key)
            self.finish(seed)
        world.pass_time(1.0)
        one.ask(key)
        self.step(1, seed)
        before = world.gates.hold()
        self.invalidate(1 - instance, key[1], seed)
        if registers:
            one.ear.connect()
            one.ear.send(beats=True)
            one.ear.carry_out()
            one.ear.deliver()
        else:
            one.ask(key)
        world.gates.give_back(before)
        self.finish(seed)
        one.peek(key)

    def _call_without_redis(self, instance: int, key: tuple[str, str], seed: int) -> None:
        """Begin a call of the source for a user while Redis is down, then let Redis answer again."""
        world = self.world
        world.redis(down=True)
        world.instances[instance].ask(key)
        self.step(1, seed)
        world.redis(down=False)
        world.instances[1 - instance].ear.hear()

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), seed=SEEDS)
    def be_missing_from_a_young_list(self, instance: int, key: tuple[str, str], seed: int) -> None:
        """Redis has lost its list, and an instance that is cut off from the channel has not registered again."""
        one = self.keep(instance, key, seed)
        one.ear.break_off()
        self.world.server.channel.lose_list()
        self.world.instances[1 - instance].ear.hear()
        self.invalidate(1 - instance, key[1], seed)
        one.peek(key)

    @rule(
        instance=INSTANCES,
        key=st.sampled_from(KEYS),
        seconds=st.sampled_from([30.0, LISTED - 10.0, LISTED - 1.0, LISTED + 2.0, LISTED + 4.5]),
        late=st.sampled_from([0.0, 5.0]),
        seed=SEEDS,
    )
    def be_cut_off_for_long(self, instance: int, key: tuple[str, str], seconds: float, late: float, seed: int) -> None:
        """An instance loses the channel, its last beat late, stays listed, and keeps values that it looks up."""
        world = self.world
        one, other = world.instances[instance], world.instances[1 - instance]
        self.all_well(seed)
        one.ear.hear()
        one.ear.send(beats=True)
        one.ear.carry_out()
        world.pass_time(late)
        while one.ear.deliver():
            pass
        one.ear.break_off()
        world.pass_time(seconds - late)
        self.finish(seed)
        other.ear.hear()
        one.ask(key)
        self.finish(seed)
        self.invalidate(1 - instance, key[1], seed)
        one.peek(key)
        world.pass_time(1.5)
        one.peek(key)

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), seconds=st.sampled_from([0.6, 1.2]), seed=SEEDS)
    def wait_for_a_slow_redis(self, instance: int, key: tuple[str, str], seconds: float, seed: int) -> None:
        """Trust in what is known has ended, and Redis, which knows that it was invalidated, takes its time."""
        world = self.world
        one = self.keep(instance, key, seed)
        one.ear.break_off()
        self.invalidate(1 - instance, key[1], seed)
        world.pass_time(POLICY.untrusted_ttl + 0.5)
        one.ask(key)
        world.loop.settle(chooser(seed))
        world.pass_time(seconds)
        world.loop.settle(chooser(seed))
        self.finish(seed)

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), seed=SEEDS)
    def be_confirmed_too_late(self, instance: int, key: tuple[str, str], seed: int) -> None:
        """A load waits to be stored, its user is invalidated, and Redis is cut off for longer than the report says."""
        world = self.world
        one = world.instances[instance]
        self.all_well(seed)
        one.ear.hear()
        one.cache.memory.drop(key[1])
        world.server.values.pop(key, None)
        one.ask(key)
        self.step(3, seed)
        one.ear.break_off()
        before = world.gates.hold()
        self.invalidate(1 - instance, key[1], seed)
        world.redis(down=True)
        world.pass_time(POLICY.longest_untold)
        one.ask(key)
        world.loop.settle(chooser(seed))
        world.gates.give_back(before)
        self.finish(seed)
        world.redis(down=False)

    @rule(instance=INSTANCES, key=st.sampled_from(KEYS), seconds=st.sampled_from([-0.5, 0.1, 1.0]), seed=SEEDS)
    def outlast_the_report(self, instance: int, key: tuple[str, str], seconds: float, seed: int) -> None:
        """An instance is cut off from everything until about the second that the report of an invalidation says."""
        world = self.world
        one = self.keep(instance, key, seed)
        one.ear.break_off()
        self.invalidate(1 - instance, key[1], seed)
        world.redis(down=True)
        world.source = "down"
        world.pass_time(POLICY.longest_untold + seconds)
        one.ask(key)
        self.finish(seed)
        self.all_well(seed)
