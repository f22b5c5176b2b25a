"""How what the fleet stands on is made to fail, and works again at the end of a `with` block."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from examples.servers import TcpProxy, Valkey
from examples.servers.handle import Server

from .fleet import Fleet, Instance

# Seconds that what the database said is under way: time for an invalidation to return meanwhile.
DISTANCE: Final = 0.02
LISTENERS: Final = "ctx:*:00}:p"
WITHIN: Final = 30.0


@contextmanager
def killed(server: Server) -> Iterator[None]:
    """Kill a server, and start it again."""
    server.kill()
    try:
        yield
    finally:
        server.restart()


@contextmanager
def paused(server: Server) -> Iterator[None]:
    """Stop a server's clock."""
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def restarted(server: Server) -> Iterator[None]:
    """End a server in good order, and start it again."""
    server.restart()
    yield


@contextmanager
def link(proxy: TcpProxy, begin: Callable[[TcpProxy], None], *, rests: float = 0.0) -> Iterator[None]:
    """Let a network fail; at its end every connection over it is lost."""
    begin(proxy)
    try:
        yield
    finally:
        # A stream that has lost bytes must not go on: no network does that.
        proxy.drop()
        proxy.delay(rests)


@contextmanager
def alone(instance: Instance, begin: Callable[[TcpProxy], None] = TcpProxy.refuse) -> Iterator[None]:
    """Cut an instance off from Redis and from its source."""
    with link(instance.redis, begin), link(instance.source, begin, rests=DISTANCE):
        yield


def silently(rng: random.Random) -> Callable[[TcpProxy], None]:
    """Return how a partition is made: refused, or with nothing that answers."""
    return rng.choice((TcpProxy.refuse, TcpProxy.black_hole))


@contextmanager
def restarted_empty(valkey: Valkey) -> Iterator[None]:
    """Kill Valkey, and start it without a file."""
    written = written_file(valkey)
    valkey.kill()
    try:
        yield
    finally:
        written.unlink(missing_ok=True)
        valkey.restart()


@contextmanager
def restarted_from_a_file(valkey: Valkey) -> Iterator[None]:
    """Let Valkey write a file, and later kill it and start it from that."""
    with redis.Redis.from_url(valkey.url, socket_timeout=WITHIN) as client:
        client.save()
    try:
        yield
    finally:
        valkey.kill()
        valkey.restart()


def written_file(valkey: Valkey) -> Path:
    """Return the path of the file that Valkey starts from."""
    with redis.Redis.from_url(valkey.url, socket_timeout=WITHIN) as client:
        found: dict[str, Any] = client.config_get("dir")
    return Path(found["dir"], "dump.rdb")


@contextmanager
def both_down(fleet: Fleet) -> Iterator[None]:
    """Let neither Redis nor the source answer."""
    with restarted_empty(fleet.valkey), killed(fleet.project.postgrest):
        yield


@contextmanager
def commanded(fleet: Fleet, command: Callable[[redis.Redis], object]) -> Iterator[None]:
    """Send Valkey a command."""
    with redis.Redis.from_url(fleet.valkey.url, socket_timeout=WITHIN) as client:
        command(client)
    yield


def forget_half(client: redis.Redis, rng: random.Random) -> None:
    """Delete half of the keys."""
    keys = [key for key in client.scan_iter(count=1000) if rng.random() < 0.5]
    if keys:
        client.delete(*keys)


def forget_the_list(client: redis.Redis, _: random.Random) -> None:
    """Delete the list of instances."""
    for key in client.scan_iter(match=LISTENERS, count=1000):
        client.delete(key)


def kill_clients(client: redis.Redis) -> None:
    """Close every connection."""
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # type: ignore[no-untyped-call]  # as redis-py ships it
    client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]  # as redis-py ships it


@contextmanager
def front(fleet: Fleet, begin: Callable[[], None]) -> Iterator[None]:
    """Let the outside of Supabase fail."""
    begin()
    try:
        yield
    finally:
        fleet.front.reset()
