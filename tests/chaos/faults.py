"""What is made to fail: each kind begins, lasts and ends, and is felt by some places of the fleet meanwhile."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, TypeAlias

import redis

from examples.servers import TcpProxy
from examples.servers.handle import Server
from examples.servers.supabase.faults import Action

from .acts import (
    DISTANCE,
    LISTENERS,
    WITHIN,
    alone,
    both_down,
    commanded,
    forget_half,
    forget_the_list,
    front,
    kill_clients,
    killed,
    link,
    paused,
    restarted,
    restarted_empty,
    restarted_from_a_file,
    silently,
)
from .fleet import PLACES, Fleet
from .history import Part

Act: TypeAlias = Callable[[Fleet, int, random.Random], AbstractContextManager[object]]
EVERYWHERE: Final = tuple(range(PLACES))


@dataclass(frozen=True)
class Kind:
    """A way to fail.

    Args:
        name: as the report tells it.
        touches: what it works on, one fault at a time; with "{}" for the place.
        felt: the parts that fail by it.
        longest: seconds it lasts at most.
        act: begins it, and ends it.
        shortest: seconds it lasts at least; a tenth of the longest where it says nothing.
        loses_the_list: whether Redis loses its list of instances by it.
    """

    name: str
    touches: tuple[str, ...]
    felt: tuple[Part, ...]
    longest: float
    act: Act
    shortest: float | None = None
    loses_the_list: bool = False

    @property
    def is_of_one_place(self) -> bool:
        """Whether it may come to several places of the fleet at a time."""
        return any("{}" in each for each in self.touches)

    def lasts(self, rng: random.Random) -> float:
        """Return for how many seconds it lasts this time."""
        return rng.uniform(0.1 * self.longest if self.shortest is None else self.shortest, self.longest)

    def touched(self, slot: int) -> frozenset[str]:
        """Return what it works on, for a place of the fleet."""
        return frozenset(each.format(slot) for each in self.touches)

    def places(self, slot: int) -> tuple[int, ...]:
        """Return the places that feel it."""
        return (slot,) if self.is_of_one_place else EVERYWHERE


def _process(act: Callable[[Server], AbstractContextManager[None]]) -> Act:
    return lambda fleet, slot, _: act(fleet.instances[slot])


def _redis(begin: Callable[[TcpProxy, random.Random], None]) -> Act:
    return lambda fleet, slot, rng: link(fleet.instances[slot].redis, lambda proxy: begin(proxy, rng))


def _source(begin: Callable[[TcpProxy, random.Random], None]) -> Act:
    return lambda fleet, slot, rng: link(fleet.instances[slot].source, lambda proxy: begin(proxy, rng), rests=DISTANCE)


def _valkey(command: Callable[[redis.Redis, random.Random], object]) -> Act:
    return lambda fleet, _, rng: commanded(fleet, lambda client: command(client, rng))


def _disturbed(action: Action) -> Act:
    return lambda fleet, _, rng: front(fleet, lambda: fleet.front.disturb(action, times=None, after=rng.randrange(200)))


def _answering(status: int) -> Act:
    return lambda fleet, _, rng: front(fleet, lambda: fleet.front.fault(status=status, times=None))


KINDS: Final = (
    Kind("a process killed", ("process {}",), ("process",), 1.0, _process(killed)),
    Kind("a process stopped", ("process {}",), ("process",), 4.0, _process(paused)),
    Kind("a process restarted in good order", ("process {}",), ("process",), 0.1, _process(restarted)),
    Kind("Valkey killed", ("valkey",), ("redis",), 2.0, lambda fleet, *_: killed(fleet.valkey), loses_the_list=True),
    Kind(
        "Valkey restarted empty",
        ("valkey",),
        ("redis",),
        2.0,
        lambda fleet, *_: restarted_empty(fleet.valkey),
        loses_the_list=True,
    ),
    Kind(
        "Valkey restarted from an old file",
        ("valkey",),
        ("redis",),
        6.0,
        lambda fleet, *_: restarted_from_a_file(fleet.valkey),
        loses_the_list=True,
    ),
    Kind("Valkey stopped", ("valkey",), ("redis",), 3.0, lambda fleet, *_: paused(fleet.valkey)),
    Kind("FLUSHALL", ("valkey",), ("redis",), 0.1, _valkey(lambda client, _: client.flushall()), loses_the_list=True),
    Kind("half of the keys deleted", ("valkey",), ("redis",), 0.1, _valkey(forget_half), loses_the_list=True),
    Kind("the list of instances deleted", ("valkey",), ("redis",), 0.1, _valkey(forget_the_list), loses_the_list=True),
    Kind("all of Valkey's clients killed", ("valkey",), ("redis",), 0.1, _valkey(lambda c, _: kill_clients(c))),
    Kind("Redis cut in its replies", ("redis {}",), ("redis",), 2.0, _redis(lambda p, rng: p.cut(rng.randrange(300)))),
    Kind("Redis a black hole", ("redis {}",), ("redis",), 4.0, _redis(lambda p, _: p.black_hole())),
    Kind("Redis reset", ("redis {}",), ("redis",), 3.0, _redis(lambda p, _: p.reset())),
    Kind("Redis refused", ("redis {}",), ("redis",), 4.0, _redis(lambda p, _: p.refuse())),
    Kind("Redis slow", ("redis {}",), ("redis",), 2.0, _redis(lambda p, rng: p.delay(rng.uniform(0.01, 0.4)))),
    Kind(
        "an instance alone",
        ("redis {}", "source {}"),
        ("redis", "source"),
        10.0,
        lambda f, s, _: alone(f.instances[s]),
    ),
    Kind(
        "Redis and the source down",
        ("valkey", "postgrest"),
        ("redis", "source"),
        10.0,
        lambda fleet, *_: both_down(fleet),
        loses_the_list=True,
    ),
    Kind("source cut in its replies", ("source {}",), ("source",), 2.0, _source(lambda p, r: p.cut(r.randrange(900)))),
    Kind("source a black hole", ("source {}",), ("source",), 4.0, _source(lambda p, _: p.black_hole())),
    Kind("source reset", ("source {}",), ("source",), 3.0, _source(lambda p, _: p.reset())),
    Kind("source refused", ("source {}",), ("source",), 3.0, _source(lambda p, _: p.refuse())),
    Kind("source slow", ("source {}",), ("source",), 3.0, _source(lambda p, rng: p.delay(rng.uniform(0.02, 0.3)))),
    Kind("PostgREST killed", ("postgrest",), ("source",), 1.0, lambda fleet, *_: killed(fleet.project.postgrest)),
    Kind("PostgREST stopped", ("postgrest",), ("source",), 4.0, lambda fleet, *_: paused(fleet.project.postgrest)),
    Kind("the front answers 503", ("front",), ("source",), 3.0, _answering(503)),
    Kind("the front answers 429", ("front",), ("source",), 1.0, _answering(429)),
    Kind("the front hangs", ("front",), ("source",), 2.0, _disturbed("hang")),
    Kind("the front drops connections", ("front",), ("source",), 2.0, _disturbed("drop")),
    Kind("the front cuts its answers", ("front",), ("source",), 2.0, _disturbed("cut")),
    Kind(
        "the front slow",
        ("front",),
        ("source",),
        2.0,
        lambda f, _, r: front(f, lambda: f.front.delay(r.uniform(50, 900))),
    ),
)


# These outlast the time for which an instance is listed, and come in long runs only.
PARTITIONS: Final = (
    Kind(
        "an instance without Redis for more than a minute",
        ("redis {}",),
        ("redis",),
        75.0,
        lambda f, s, rng: link(f.instances[s].redis, silently(rng)),
        shortest=62.0,
    ),
    Kind(
        "an instance alone for more than a minute",
        ("redis {}", "source {}"),
        ("redis", "source"),
        75.0,
        lambda f, s, rng: alone(f.instances[s], silently(rng)),
        shortest=62.0,
    ),
)


def begin(fleet: Fleet) -> None:
    """Put the source at some distance, and let reports rely on the list of instances."""
    for instance in fleet.instances:
        instance.source.delay(DISTANCE)
    rely_on_the_list(fleet)


def rely_on_the_list(fleet: Fleet) -> None:
    """Let the list of instances look old, once it is complete: reports say from then on that none is missing."""
    end = time.monotonic() + WITHIN
    with redis.Redis.from_url(fleet.valkey.url, socket_timeout=WITHIN) as client:
        (listeners,) = set(client.scan_iter(match=LISTENERS, count=1000))
        while client.zcount(listeners, "(0", "+inf") < len(fleet.instances):
            if time.monotonic() > end:
                raise RuntimeError("not all instances are in the list")
            time.sleep(0.05)
        client.zadd(listeners, {"begun": -1.0})


def heal(fleet: Fleet) -> None:
    """Let everything work, whatever was left."""
    for instance in fleet.instances:
        for proxy in (instance.redis, instance.source):
            proxy.pass_through()
    with contextlib.suppress(OSError):
        fleet.front.reset()
