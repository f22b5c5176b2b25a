"""Whether Redis runs in every shape people run it in, from every package there is, and fails over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from examples.servers import Program, SentinelGroup, ServerFailed, TcpProxy, Valkey, ValkeyCluster
from examples.servers.ports import CLUSTER_BUS, bindable, free_node_port
from examples.servers.programs import ALL, another
from tests.certificates import certificates
from tests.waiting import eventually

BY_HAND = another()
PROGRAMS = [program for program in ALL if program.is_to_be_had]


def _client(port: int, **options: Any) -> Any:
    return redis.Redis(port=port, retry=Retry(NoBackoff(), 0), **options)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_program_is_what_it_is_called(program: Program) -> None:
    """Each says the name and version that are claimed for it, on its port and on its socket."""
    with Valkey.start(program=program) as server:
        for url in (server.url, server.socket_url):
            with redis.Redis.from_url(url) as client:
                said = client.info("server")
                kind = "Valkey" if said.get("server_name") == "valkey" else "Redis"
                assert program.name == f"{kind} {said.get('valkey_version', said['redis_version'])}"


def test_a_program_that_is_not_installed_is_named() -> None:
    """What is missing is an error that says which package, never a test that is left out."""
    missing = Program("Redis 0.1", "no_such_package", "bin/redis-server")
    with pytest.raises(ServerFailed, match=r"0\.1 cannot run here: no_such_package"), Valkey.start(program=missing):
        pass


def test_tls_is_spoken_before_a_server_that_has_none(valkey: Valkey, tmp_path: Path) -> None:
    """Who trusts the authority is served, who does not or speaks plainly is not."""
    tls = certificates(tmp_path)
    with TcpProxy.start("127.0.0.1", valkey.port, tls=tls.context) as front:
        with _client(front.port, ssl=True, ssl_ca_certs=str(tls.authority)) as client:
            assert client.ping()
        for stranger in (_client(front.port, ssl=True), _client(front.port)):
            with stranger, pytest.raises(redis.ConnectionError):
                stranger.ping()


def test_users_may_what_they_are_allowed() -> None:
    """A line of an ACL file is a user; others are not let in."""
    users = ["user default off", "user reader on >hush ~ctx:* +get"]
    with Valkey.start(users=users) as server:
        with _client(server.port, username="reader", password="hush") as client:
            assert client.get("ctx:a") is None
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.set("ctx:a", "b")
        with _client(server.port) as nobody, pytest.raises(redis.AuthenticationError):
            nobody.get("ctx:a")


def test_both_ports_of_a_cluster_node_are_free_and_below_those_of_clients() -> None:
    """An outgoing connection may sit on any port of the system's range, and then no server can listen there."""
    for _ in range(50):
        port = free_node_port()
        assert bindable(port)
        assert bindable(port + CLUSTER_BUS)
        assert port + CLUSTER_BUS < 32_768


def test_sentinels_promote_the_replica() -> None:
    """What the master was told is there after its death, and the sentinels name the new one."""
    with SentinelGroup.start() as group:
        assert group.agree_on(group.master)
        with redis.Redis.from_url(group.master.url) as client:
            client.set("key", "value")
            assert client.wait(1, 5000) == 1
        group.master.kill()
        eventually(lambda: group.agree_on(group.replica), timeout=15)
        with redis.Redis.from_url(group.replica.url) as client:
            eventually(lambda: client.info("replication")["role"] == "master")
            assert client.get("key") == b"value"


def _reachable(cluster: ValkeyCluster) -> Any:
    return redis.RedisCluster(host="127.0.0.1", port=cluster.masters[1].port)


def test_a_lost_node_of_a_cluster_is_replaced() -> None:
    """A master's replica takes its slots over, and all that was in them is there."""
    with ValkeyCluster.start() as cluster:
        with _reachable(cluster) as client:
            for number in range(30):
                client.set(f"key{number}", number)
        for master in cluster.masters:
            with cluster.of(master) as client:
                assert client.wait(1, 5000) == 1
        cluster.masters[0].kill()
        with cluster.of(cluster.replicas[0]) as client:
            eventually(lambda: client.info("replication")["role"] == "master", timeout=15)
        eventually(cluster.is_ready, timeout=15)
        with _reachable(cluster) as client:
            assert [client.get(f"key{number}") for number in range(30)] == [b"%d" % number for number in range(30)]


if BY_HAND is not None:

    def test_sentinels_and_clusters_speak_tls_among_themselves(tmp_path: Path) -> None:
        """A program with TLS, where somebody names one, serves both shapes with it."""
        assert BY_HAND is not None
        tls = certificates(tmp_path)
        with SentinelGroup.start(program=BY_HAND, tls=tls) as group:
            assert group.url.startswith("rediss+sentinel://127.0.0.1:")
        with ValkeyCluster.start(program=BY_HAND, tls=tls) as cluster:
            assert cluster.url.startswith("rediss+cluster://127.0.0.1:")
