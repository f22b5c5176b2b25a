"""Which clients an address stands for: of one server, of the master that sentinels name, or of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from .incarnation import Incarnation
from .keys import KeySpace
from .options import RedisOptions
from .servers.cluster import Cluster
from .servers.connection import Admit, Command, How, Server, connect, once, places_of
from .servers.driver import Client, Link
from .servers.node import Reach
from .servers.sentinel import Sentinels
from .servers.target import Kind, Place, Target


def opened(
    target: Target | Client, options: RedisOptions, incarnation: Incarnation, keys: KeySpace
) -> tuple[Link, Link, bool]:
    """Return two clients that connect when they are first used, and whether they are ours.

    The first is for what travels alone, the second has one connection (of each node) for what is gathered. A ready
    client of one server is used as it is, and for both; one of a cluster is taken for how it speaks to whom.

    Args:
        target: where, or a ready client.
        options: timeouts and sizes.
        incarnation: looks at each new connection before its first command.
        keys: of the namespace.
    """
    if not isinstance(target, Target):
        if isinstance(target, Server):
            return target, target, False
        return *_cluster(target, *places_of(target), options, incarnation, keys), True
    if target.kind is Kind.CLUSTER:
        return *_cluster(target.url, target.places, _as_named, options, incarnation, keys), True
    locate = Sentinels(target, options).master if target.kind is Kind.SENTINEL else None
    pool = connect(target.url, options, incarnation.check, locate=locate)
    return pool, connect(target.url, options, incarnation.check, alone=True, locate=locate), True


def _cluster(
    how: How,
    places: tuple[Place, ...],
    remap: Callable[[Place], Place],
    options: RedisOptions,
    incarnation: Incarnation,
    keys: KeySpace,
) -> tuple[Cluster, Cluster]:
    async def ask(place: Place, commands: Sequence[Command]) -> list[object]:
        return await once(how, place, commands, options.timeout)

    def make(place: Place, admit: Admit, alone: bool) -> Server:  # noqa: FBT001 - as the type says
        return connect(how, options, admit, alone=alone, place=place)

    def look(buckets: frozenset[int]) -> Admit:
        return partial(incarnation.check, buckets=buckets)

    cluster = Cluster(Reach(places, ask, make, remap), options, keys, look)
    return cluster, cluster.shared()


def _as_named(place: Place) -> Place:
    return place
