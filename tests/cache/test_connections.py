"""How a connection to Redis fails, what a forked process makes of a ready client, and when a look is repeated."""

from __future__ import annotations

import ssl
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis, RedisCluster
from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ctxmiddleware.cache.redis.options import RedisOptions
from ctxmiddleware.cache.redis.servers.connection import Send, Twin, connect, twin_of
from ctxmiddleware.cache.redis.servers.driver import leads_elsewhere, look_at, reason_of
from ctxmiddleware.cache.redis.servers.target import Place
from ctxmiddleware.secret import Secret
from tests.backends import ASYNCIO

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", [ASYNCIO])]
QUICK = RedisOptions(timeout=0.05)


async def admit(send: Send) -> None:
    """Look at nothing."""


def _failing(error: Exception) -> Any:
    async def connecting(self: object) -> None:
        raise error

    return connecting


async def _connecting(url: str) -> str:
    client: Any = connect(Secret(url), QUICK, admit)
    connection = client.connection_pool.make_connection()
    with pytest.raises((RedisConnectionError, RedisTimeoutError)) as raised:
        await connection.connect()
    return str(raised.value)


async def test_a_server_that_does_not_answer_in_tls_may_speak_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis waits for the rest of what it takes for a command; the message names the other scheme."""
    monkeypatch.setattr(SSLConnection, "_connect", _failing(TimeoutError()))
    assert "then write redis:// in the place of rediss://" in await _connecting("rediss://localhost:1")


async def test_a_server_that_does_not_answer_without_tls_only_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other scheme would help."""
    monkeypatch.setattr(Connection, "_connect", _failing(TimeoutError()))
    assert "rediss" not in await _connecting("redis://localhost:1")


@pytest.mark.parametrize(
    ("error", "is_plain"),
    [
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"), True),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), False),
    ],
    ids=["no TLS", "certificate"],
)
async def test_a_failed_handshake_says_why(
    error: ssl.SSLError, monkeypatch: pytest.MonkeyPatch, *, is_plain: bool
) -> None:
    """And what to write, where the server speaks no TLS."""
    error.reason = "WRONG_VERSION_NUMBER" if is_plain else "CERTIFICATE_VERIFY_FAILED"
    monkeypatch.setattr(SSLConnection, "_connect", _failing(error))
    told = await _connecting("rediss://localhost:1")
    assert told.startswith("cannot connect: ")
    assert ("in the place of rediss://" in told) is is_plain


async def test_a_client_that_has_no_connection_is_used_in_the_child_as_well() -> None:
    """It connects there when it is first used; a cluster's own connections are not used at all."""
    one = Redis.from_url("redis://localhost:1")
    assert twin_of(one) is one
    cluster = RedisCluster(host="localhost", port=1)
    assert twin_of(cluster) is cluster


def _connected(pool: Any) -> Redis:
    pool._available_connections.append(pool.make_connection())
    return Redis.from_pool(pool)


@pytest.mark.parametrize("kind", [ConnectionPool, BlockingConnectionPool])
async def test_a_client_that_is_connected_is_made_again_for_the_child(kind: Any) -> None:
    """As it was made, with no connection of the parent's."""
    waits = {"timeout": 7} if kind is BlockingConnectionPool else {}
    given = _connected(kind(connection_class=Connection, max_connections=3, host="there", port=9, db=2, **waits))
    twin = twin_of(given)
    assert isinstance(twin, Twin)
    pool: Any = twin.connection_pool
    assert pool is not given.connection_pool
    assert (type(pool), pool.max_connections, pool._available_connections) == (kind, 3, [])
    assert getattr(pool, "timeout", None) == waits.get("timeout")
    made = pool.make_connection()
    assert (type(made), made.host, made.port, made.db) == (Connection, "there", 9, 2)


async def test_a_pool_of_another_kind_is_not_made_again() -> None:
    """What it needs is not known; each command in the child names the way out."""

    class Own(ConnectionPool):
        pass

    twin: Any = twin_of(_connected(Own(connection_class=Connection)))
    with pytest.raises(RedisConnectionError, match="give ContextPlugin a URL") as raised:
        await twin.execute_command("PING")
    assert "before this process was forked" in str(raised.value)
    connection = twin.connection_pool.make_connection()
    assert "_MadeBeforeFork" in repr(connection)


class _Server:
    """A client under Sentinel whose idle connection leads to one place, while the sentinels name another."""

    def __init__(self, idle: Place, master: Place) -> None:
        self.closed = 0
        idle_one = SimpleNamespace(host=idle.host, port=idle.port, is_connected=True)

        async def locate() -> Place:
            return master

        self.connection_pool = SimpleNamespace(
            connection_class=SimpleNamespace(locate=locate),
            _available_connections=[idle_one],
            disconnect=self._disconnect,
        )

    async def _disconnect(self, *, inuse_connections: bool) -> None:
        self.closed += 1

    async def execute_command(self, *_: object) -> object:
        """Answer."""
        return b"PONG"


@pytest.mark.parametrize(("master", "closed"), [(Place("a", 1), 0), (Place("b", 1), 1), (Place("a", 2), 1)])
async def test_idle_connections_to_a_former_master_are_closed_before_the_look(master: Place, closed: int) -> None:
    """One that was cut off has not been told that it is none any more."""
    server: Any = _Server(Place("a", 1), master)
    seen: list[object] = []

    async def check(send: Send) -> None:
        seen.append(server.closed)
        seen.extend(await send([("PING",)]))

    await look_at(server, check)
    assert seen == [closed, b"PONG"]


async def test_sentinels_that_cannot_say_have_named_no_other_master() -> None:
    """A connection that works is kept."""

    async def failing() -> Place:
        raise ConnectionError("no sentinel")

    async def another() -> Place:
        return Place("b", 1)

    connection: Any = SimpleNamespace(host="a", port=1, locate=failing)
    assert not await leads_elsewhere(connection)
    connection.locate = another
    assert await leads_elsewhere(connection)
    connection.host = "b"
    assert not await leads_elsewhere(connection)
    assert not await leads_elsewhere(SimpleNamespace(host="a", port=1))  # type: ignore[arg-type]  # of one server


async def test_what_a_server_repeats_is_not_in_the_reason() -> None:
    """The password of a login, for example."""
    assert reason_of(ResponseError("unknown command 'AUTH' with args 'hunter2'")) == "Redis refused (ResponseError)"
    assert "hunter2" not in reason_of(AuthenticationError("hunter2"))
    assert "look at user, password and rights" in reason_of(AuthenticationError("hunter2"))
    assert reason_of(ConnectionError()) == "ConnectionError"
    assert reason_of(RedisConnectionError("gone")) == "gone"
