"""What is made to fail: each kind begins, lasts and ends, and is felt by some places of the fleet meanwhile."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

import redis

from examples.servers import TcpProxy
from examples.servers.handle import Server
from examples.servers.supabase.faults import Action

from .fleet import PLACES, Fleet, Instance
from .history import Part

Act: TypeAlias = Callable[[Fleet, int, random.Random], AbstractContextManager[object]]
# Seconds that what the database said is under way: time for an invalidation to return meanwhile.
DISTANCE: Final = 0.02
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
    """

    name: str
    touches: tuple[str, ...]
    felt: tuple[Part, ...]
    longest: float
    act: Act

    def touched(self, slot: int) -> frozenset[str]:
        """Return what it works on, for a place of the fleet."""
        return frozenset(each.format(slot) for each in self.touches)

    def places(self, slot: int) -> tuple[int, ...]:
        """Return the places that feel it."""
        return (slot,) if any("{}" in each for each in self.touches) else EVERYWHERE


@contextmanager
def _killed(server: Server) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.restart()


@contextmanager
def _paused(server: Server) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def _restarted(server: Server) -> Iterator[None]:
    server.restart()
    yield


@contextmanager
def _link(proxy: TcpProxy, begin: Callable[[TcpProxy], None], *, rests: float = 0.0) -> Iterator[None]:
    begin(proxy)
    try:
        yield
    finally:
        # A stream that has lost bytes must not go on: no network does that.
        proxy.drop()
        proxy.delay(rests)


@contextmanager
def _alone(instance: Instance) -> Iterator[None]:
    with _link(instance.redis, TcpProxy.refuse), _link(instance.source, TcpProxy.refuse, rests=DISTANCE):
        yield


@contextmanager
def _commanded(fleet: Fleet, command: Callable[[redis.Redis], object]) -> Iterator[None]:
    with redis.Redis.from_url(fleet.valkey.url, socket_timeout=2) as client:
        command(client)
    yield


def _forget_half(client: redis.Redis, rng: random.Random) -> None:
    keys = [key for key in client.scan_iter(count=1000) if rng.random() < 0.5]
    if keys:
        client.delete(*keys)


def _kill_clients(client: redis.Redis) -> None:
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # type: ignore[no-untyped-call]
    client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]


@contextmanager
def _front(fleet: Fleet, begin: Callable[[], None]) -> Iterator[None]:
    begin()
    try:
        yield
    finally:
        fleet.front.reset()


def _process(act: Callable[[Server], AbstractContextManager[None]]) -> Act:
    return lambda fleet, slot, _: act(fleet.instances[slot])


def _redis(begin: Callable[[TcpProxy, random.Random], None]) -> Act:
    return lambda fleet, slot, rng: _link(fleet.instances[slot].redis, lambda proxy: begin(proxy, rng))


def _source(begin: Callable[[TcpProxy, random.Random], None]) -> Act:
    return lambda fleet, slot, rng: _link(fleet.instances[slot].source, lambda proxy: begin(proxy, rng), rests=DISTANCE)


def _valkey(command: Callable[[redis.Redis, random.Random], object]) -> Act:
    return lambda fleet, _, rng: _commanded(fleet, lambda client: command(client, rng))


def _disturbed(action: Action) -> Act:
    return lambda fleet, _, rng: _front(
        fleet, lambda: fleet.front.disturb(action, times=None, after=rng.randrange(200))
    )


def _answering(status: int) -> Act:
    return lambda fleet, _, rng: _front(fleet, lambda: fleet.front.fault(status=status, times=None))


KINDS: Final = (
    Kind("a process killed", ("process {}",), ("process",), 1.0, _process(_killed)),
    Kind("a process stopped", ("process {}",), ("process",), 4.0, _process(_paused)),
    Kind("a process restarted in good order", ("process {}",), ("process",), 0.1, _process(_restarted)),
    Kind("Valkey killed", ("valkey",), ("redis",), 2.0, lambda fleet, *_: _killed(fleet.valkey)),
    Kind("Valkey stopped", ("valkey",), ("redis",), 3.0, lambda fleet, *_: _paused(fleet.valkey)),
    Kind("FLUSHALL", ("valkey",), ("redis",), 0.1, _valkey(lambda client, _: client.flushall())),
    Kind("half of the keys deleted", ("valkey",), ("redis",), 0.1, _valkey(_forget_half)),
    Kind("all of Valkey's clients killed", ("valkey",), ("redis",), 0.1, _valkey(lambda c, _: _kill_clients(c))),
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
        lambda f, s, _: _alone(f.instances[s]),
    ),
    Kind("source cut in its replies", ("source {}",), ("source",), 2.0, _source(lambda p, r: p.cut(r.randrange(900)))),
    Kind("source a black hole", ("source {}",), ("source",), 4.0, _source(lambda p, _: p.black_hole())),
    Kind("source reset", ("source {}",), ("source",), 3.0, _source(lambda p, _: p.reset())),
    Kind("source refused", ("source {}",), ("source",), 3.0, _source(lambda p, _: p.refuse())),
    Kind("source slow", ("source {}",), ("source",), 3.0, _source(lambda p, rng: p.delay(rng.uniform(0.02, 0.3)))),
    Kind("PostgREST killed", ("postgrest",), ("source",), 1.0, lambda fleet, *_: _killed(fleet.project.postgrest)),
    Kind("PostgREST stopped", ("postgrest",), ("source",), 4.0, lambda fleet, *_: _paused(fleet.project.postgrest)),
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
        lambda f, _, r: _front(f, lambda: f.front.delay(r.uniform(50, 900))),
    ),
)


def begin(fleet: Fleet) -> None:
    """Put the source at some distance."""
    for instance in fleet.instances:
        instance.source.delay(DISTANCE)


def heal(fleet: Fleet) -> None:
    """Let everything work, whatever was left."""
    for instance in fleet.instances:
        for proxy in (instance.redis, instance.source):
            proxy.pass_through()
    with contextlib.suppress(OSError):
        fleet.front.reset()
