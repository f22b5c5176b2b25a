"""How a connection to Redis is made: looked at before it is used, bounded, not written to once it was lost."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

import anyio
import hiredis
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig

from ....network import NO_TLS, reason
from ....secret import Secret
from ..options import RedisOptions
from .target import Place

Command: TypeAlias = Sequence[bytes | str | int]
Send: TypeAlias = Callable[[Sequence[Command]], Awaitable[list[object]]]
"""Sends commands in one trip and returns their answers, errors of Redis among them."""
Admit: TypeAlias = Callable[[Send], Awaitable[None]]
"""Looks at a server over a new connection, and raises where that connection must not be used."""
Locate: TypeAlias = Callable[[], Awaitable[Place]]
"""Finds out where the server is now, for each new connection."""
Server: TypeAlias = Redis
"""A client of one server, or of whichever is master."""
How: TypeAlias = Secret | RedisCluster
"""How a server is spoken to: as a URL says, or as a ready client of a cluster does."""

_OF_A_CLUSTER: Final = ("max_connections", "response_callbacks", "redis_connect_func", "himport_registry")


_PLAIN: Final = " (then write redis:// in the place of rediss://)"
# Arguments of connections that a pool adds by itself.
_OF_A_POOL: Final = ("maint_notifications_pool_handler", "himport_registry", "event_dispatcher")


class _Watched(AbstractConnection):
    """A connection that is used once the server behind it was looked at, and not written to once it was lost."""

    admit: Admit
    locate: Locate | None
    host: str
    port: int

    async def _connect(self) -> None:
        if self.locate is not None:
            self.host, self.port = await self.locate()
        try:
            await super()._connect()  # type: ignore[safe-super, no-untyped-call]  # of the class for the URL's scheme
        except TimeoutError:
            if not isinstance(self, SSLConnection):
                raise
            # Redis reads the TLS handshake as an incomplete command and waits for the rest.
            raise RedisTimeoutError(
                f"no TLS connection within {self.socket_connect_timeout:g} s: the server hangs, or {NO_TLS}{_PLAIN}"
            ) from None
        except ssl.SSLError as error:
            told = reason(error)
            raise RedisConnectionError(f"cannot connect: {told}{_PLAIN if told == NO_TLS else ''}") from None

    async def on_connect(self) -> None:
        """Do nothing: on a unix socket the driver would greet the server twice."""

    async def on_connect_check_health(
        self,
        check_health: bool = True,  # noqa: FBT001, FBT002 - the driver's own signature
    ) -> None:
        await super().on_connect_check_health(check_health)
        try:
            await self.admit(self._send)
        except BaseException:
            # The driver closes it after errors of its own only, and would use it as it is after any other.
            await self.disconnect(nowait=True)
            raise

    async def _send(self, commands: Sequence[Command]) -> list[object]:
        await self.send_packed_command(self.pack_commands(commands), check_health=False)
        return [await self._answer() for _ in commands]

    async def _answer(self) -> object:
        try:
            return await self.read_response()
        except ResponseError as error:
            return error

    def pack_command(self, *arguments: Any) -> list[bytes]:
        # An eighth of what the driver's own takes, which is most of what a look-up of many costs here.
        if type(arguments[0]) is bytes:
            return [hiredis.pack_command(arguments)]
        packed: list[bytes] = super().pack_command(*arguments)
        return packed

    async def send_packed_command(
        self,
        command: bytes | str | Iterable[bytes],
        check_health: bool = True,  # noqa: FBT001, FBT002 - the driver's own signature
    ) -> None:
        # Reset while it was idle, it looks sound to redis-py 8.1. Python 3.12, 3.13 up to 3.13.9 and 3.14.0 then either
        # raise a TypeError or, worse, go on watching the number of a closed socket, and whatever connection is given
        # that number next hangs (github.com/python/cpython/issues/136234).
        if self._writer is not None and self._writer.is_closing():
            raise RedisConnectionError("the connection was lost while it was idle")
        await super().send_packed_command(command, check_health)


def connect(
    how: How,
    options: RedisOptions,
    admit: Admit,
    *,
    alone: bool = False,
    locate: Locate | None = None,
    place: Place | None = None,
) -> Server:
    """Return a client that connects when it is first used.

    Args:
        how: the server is spoken to, and where it is.
        options: timeouts and sizes.
        admit: called with each new connection before its first command.
        alone: whether it has one connection only, whatever the options and the URL say.
        locate: finds the server for each new connection, in place of the host in the URL.
        place: where it is, in place of the host in the URL.
    """
    # A hung server is not asked twice: only a lost connection is worth another try.
    pool = _pool(how, options.timeout, tries=2, max_connections=options.pool_size, timeout=options.timeout)
    # Set here and not given above: the URL's scheme decides which kind it is.
    traits = {"admit": staticmethod(admit), "locate": None if locate is None else staticmethod(locate)}
    pool.connection_class = type("_Watched", (_Watched, pool.connection_class), traits)
    if place is not None:
        pool.update_connection_kwargs(**place._asdict())
    if alone:
        pool.max_connections = 1
    return Redis.from_pool(pool)


def _pool(how: How, seconds: float, *, tries: int, **sizes: Any) -> BlockingConnectionPool:
    ours: dict[str, Any] = {
        **sizes,
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), tries - 1, supported_errors=(RedisConnectionError,)),
        # What uvloop raises where a connection was lost while it was idle.
        "retry_on_error": [RuntimeError],
        # It would tell the server the driver's name by a command that a narrow user may not do.
        "driver_info": None,
        # With it, redis-py no longer looks for left-over bytes when it takes a connection from the pool.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if isinstance(how, Secret):
        return BlockingConnectionPool.from_url(how.reveal(), **ours)
    # As its own connections are made, less what belongs to them alone.
    theirs = {name: value for name, value in how.connection_kwargs.items() if name not in _OF_A_CLUSTER}
    return BlockingConnectionPool(**theirs | ours)


def places_of(client: RedisCluster) -> tuple[tuple[Place, ...], Callable[[Place], Place]]:
    """Return which nodes a ready client asks for the others, and what it makes of the addresses they name."""
    nodes = client.nodes_manager

    def remap(place: Place) -> Place:
        return Place(*nodes.remap_host_port(*place))

    return tuple(Place(node.host, int(node.port)) for node in nodes.startup_nodes.values()), remap


async def once(how: How, place: Place, commands: Sequence[Command], seconds: float) -> list[object]:
    """Send commands over a connection of their own, and return their answers, errors of Redis among them.

    Args:
        how: the server is spoken to.
        place: where it is.
        commands: what.
        seconds: for connecting, and for each answer.

    Raises:
        Exception: whatever the driver raises.
    """
    pool = _pool(how, seconds, tries=1)
    connection = pool.connection_class(**pool.connection_kwargs | place._asdict())
    try:
        await connection.connect()  # type: ignore[no-untyped-call]  # as redis-py ships it
        answers: list[object] = []
        for command in commands:
            await connection.send_command(*command, check_health=False)
            try:
                answers.append(await connection.read_response())
            except ResponseError as error:
                answers.append(error)
        return answers
    finally:
        with anyio.CancelScope(shield=True):
            await connection.disconnect(nowait=True)


class Twin(Redis):
    """A client that was made as a ready one was, in a forked process, and is ours to close."""


class _MadeBeforeFork(AbstractConnection):
    async def _connect(self) -> None:
        raise RedisConnectionError(
            "the Redis client given was connected before this process was forked, and its pool cannot be made again "
            "here: give ContextPlugin a URL, or make client and plugin after the fork"
        )

    def repr_pieces(self) -> list[tuple[str, object]]:
        return []

    def _host_error(self) -> str:
        return "none"


def twin_of(client: Redis | RedisCluster) -> Redis | RedisCluster:
    """Return the client that a forked process uses where its parent uses this one.

    Two processes that write to one connection read each other's answers. A client that has no connection yet is
    returned as it is, and so is one of a cluster, whose connections are not used.
    """
    if isinstance(client, RedisCluster):
        return client
    pool = client.connection_pool
    if not pool._available_connections and not pool._in_use_connections:
        return client
    if type(pool) not in (ConnectionPool, BlockingConnectionPool):
        return Twin.from_pool(ConnectionPool(connection_class=_MadeBeforeFork))
    made: dict[str, Any] = {name: value for name, value in pool.connection_kwargs.items() if name not in _OF_A_POOL}
    if isinstance(pool, BlockingConnectionPool):
        made["timeout"] = pool.timeout
    return Twin.from_pool(
        type(pool)(connection_class=pool.connection_class, max_connections=pool.max_connections, **made)
    )
