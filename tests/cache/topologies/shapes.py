"""Redis in each shape and version it is run in, as an address for the library and a way in for the test."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import redis
from redis.crc import key_slot

from ctxmiddleware.cache.redis.servers.driver import Client
from examples.servers import Program, SentinelGroup, TcpProxy, Valkey, ValkeyCluster
from examples.servers.programs import ALL, VALKEY_9, another
from tests.certificates import certificates

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")


@dataclass
class Shape:
    """One Redis that runs.

    Args:
        target: what the library is given.
        owner: returns a client of the server that has a key.
    """

    target: str | Client
    owner: Callable[[str], Any]


Start: TypeAlias = Callable[[], AbstractContextManager[Shape]]


def _to(client: Any) -> Callable[[str], Any]:
    return lambda _: client


@contextlib.contextmanager
def alone(program: Program = VALKEY_9) -> Iterator[Shape]:
    """One server."""
    with Valkey.start(program=program) as server, redis.Redis.from_url(server.url) as client:
        yield Shape(server.url, _to(client))


@contextlib.contextmanager
def by_socket() -> Iterator[Shape]:
    """One server, by its unix socket."""
    with Valkey.start() as server, redis.Redis.from_url(server.url) as client:
        yield Shape(server.socket_url, _to(client))


@contextlib.contextmanager
def by_tls() -> Iterator[Shape]:
    """One server behind a front that speaks TLS."""
    with contextlib.ExitStack() as stack:
        tls = certificates(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        server = stack.enter_context(Valkey.start())
        front = stack.enter_context(TcpProxy.start("127.0.0.1", server.port, tls=tls.context))
        client = stack.enter_context(redis.Redis.from_url(server.url))
        yield Shape(f"rediss://127.0.0.1:{front.port}/0?ssl_ca_certs={tls.authority}", _to(client))


@contextlib.contextmanager
def by_sentinels(program: Program = VALKEY_9) -> Iterator[Shape]:
    """A master and a replica under three sentinels."""
    with SentinelGroup.start(program=program) as group, redis.Redis.from_url(group.master.url) as client:
        yield Shape(group.url, _to(client))


@contextlib.contextmanager
def by_cluster(program: Program = VALKEY_9) -> Iterator[Shape]:
    """Three masters and their replicas."""
    with ValkeyCluster.start(program=program) as cluster:
        yield Shape(cluster.url, _owner_in(cluster))


@contextlib.contextmanager
def by_cluster_and_tls(program: Program) -> Iterator[Shape]:
    """The same with TLS between all of them."""
    with contextlib.ExitStack() as stack:
        tls = certificates(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        cluster = stack.enter_context(ValkeyCluster.start(program=program, tls=tls))
        yield Shape(cluster.url, _owner_in(cluster))


@contextlib.contextmanager
def by_cluster_and_user(program: Program = VALKEY_9) -> Iterator[Shape]:
    """A cluster, as a user who may do what the README says is needed there, and nothing else."""
    with ValkeyCluster.start(program=program) as cluster:
        for node in (*cluster.masters, *cluster.replicas):
            with cluster.of(node) as client:
                client.execute_command(*acl_command(), *acl_in_clusters())
        yield Shape(cluster.url.replace("://", "://contexts:secret@"), _owner_in(cluster))


def _owner_in(cluster: ValkeyCluster) -> Callable[[str], Any]:
    def owner(key: str) -> Any:
        return cluster.of(cluster.owner(key_slot(key.encode())))

    return owner


@contextlib.contextmanager
def by_sentinels_and_tls(program: Program) -> Iterator[Shape]:
    """The same with TLS between all of them."""
    with tempfile.TemporaryDirectory() as folder:
        tls = certificates(Path(folder))
        with (
            SentinelGroup.start(program=program, tls=tls) as group,
            redis.Redis.from_url(group.master.url) as client,
        ):
            yield Shape(group.url, _to(client))


@contextlib.contextmanager
def by_user(program: Program = VALKEY_9) -> Iterator[Shape]:
    """One server, as a user who may do what the README says is needed, and nothing else."""
    with Valkey.start(program=program) as server, redis.Redis.from_url(server.url) as client:
        client.execute_command(*acl_command())
        yield Shape(f"redis://contexts:secret@127.0.0.1:{server.port}/0", _to(client))


def acl_command() -> list[str]:
    """Return the words of the README's `ACL SETUSER`."""
    (command,) = re.findall(r"^(ACL SETUSER contexts .*)$", README, re.MULTILINE)
    return str(command).split()


def acl_in_clusters() -> list[str]:
    """Return what the README says is needed in a cluster too."""
    (words,) = re.findall(r"^In a cluster also `(.*?)`", README, re.MULTILINE)
    return str(words).split()


def programs() -> dict[str, Program]:
    """Return the servers there are packages of, and the one that somebody names."""
    by_hand = another()
    return {program.name: program for program in ALL if program.is_to_be_had} | (
        {by_hand.name: by_hand} if by_hand else {}
    )
