"""How Redis is reached: the only home of its driver, whose traps are closed here."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias, cast
from urllib.parse import unquote, urlsplit

import hiredis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError, NoScriptError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from ..errors import ConfigurationError
from ..secret import Secret
from .scripts import Script

URL_FORMS: Final = "write redis://host:6379/0, rediss://host:6379/0 or unix:///path/to/socket"

Client: TypeAlias = "Redis"
Connection: TypeAlias = AbstractConnection
Refused = ResponseError
"""What Redis answers where it will not do what it is told."""
Command: TypeAlias = Sequence[bytes | str | int]
Send: TypeAlias = Callable[[Sequence[Command]], Awaitable[list[object]]]
"""Sends commands in one trip and returns their answers, errors of Redis among them."""
Admit: TypeAlias = Callable[[Send], Awaitable[None]]
"""Looks at a server over a new connection, and raises where that connection must not be used."""


class Call(NamedTuple):
    """A script with its keys and arguments."""

    script: Script[Any]
    keys: Sequence[str]
    arguments: Sequence[bytes | str | int]


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """How Redis is asked.

    Args:
        timeout: seconds for connecting and for one answer; both together never take more than twice that.
        pool_size: connections per event loop.
        pool_wait: seconds a look-up waits for a connection that does not get free before it goes to the source instead.
        probe_every: seconds between background probes while Redis is down.
        check_every: seconds between looks at whether an open connection still leads to the server it led to.
        fault_threshold: faults in a row after which only the background probe asks Redis.
        invalidation_wait: seconds an invalidation waits for a free connection, and again for Redis to take it.
        confirm_timeout: seconds it waits for the other instances to confirm it.
        lease: seconds after which the lease of a load ends whose owner has died; a live one keeps it.
    """

    timeout: float = 0.25
    pool_size: int = 20
    pool_wait: float = 0.05
    probe_every: float = 0.5
    check_every: float = 5.0
    fault_threshold: int = 3
    invalidation_wait: float = 1.0
    confirm_timeout: float = 0.25
    lease: float = 0.75


def connect(url: Secret, options: RedisOptions, admit: Admit, *, alone: bool = False) -> Client:
    """Return a client that connects when it is first used.

    Args:
        url: where.
        options: timeouts and sizes.
        admit: called with each new connection before its first command.
        alone: whether it has one connection only, whatever the options and the URL say.
    """
    pool = BlockingConnectionPool.from_url(
        url.reveal(),
        max_connections=options.pool_size,
        timeout=options.timeout,
        socket_timeout=options.timeout,
        socket_connect_timeout=options.timeout,
        # A hung server is not asked twice: only a lost connection is worth another try.
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        # What uvloop raises where a connection was lost while it was idle.
        retry_on_error=[RuntimeError],
        # With it, redis-py no longer looks for left-over bytes when it takes a connection from the pool.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    # Set here and not given above: the URL's scheme decides which kind it is.
    pool.connection_class = type("_Watched", (_Watched, pool.connection_class), {"admit": staticmethod(admit)})
    if alone:
        pool.max_connections = 1
    return Redis.from_pool(pool)


async def connection_for(client: Client, key: str) -> Connection:  # noqa: ARG001 - a cluster has many servers
    """Return a connection of its own to the server that holds a key, not connected yet; whoever asks closes it.

    It speaks RESP3, or news of keys could not come while it waits for something else.
    """
    pool = client.connection_pool
    return pool.connection_class(**{**pool.connection_kwargs, "protocol": 3})


class _Watched(AbstractConnection):
    """A connection that is used once the server behind it was looked at, and not written to once it was lost."""

    admit: Admit

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


async def send(client: Client, commands: Sequence[Command]) -> list[object]:
    """Send commands in one trip and return their answers, errors of Redis among them."""
    if len(commands) == 1:
        try:
            return [await client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]  # as redis-py ships it
        except ResponseError as error:
            return [error]
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    answers: list[object] = await pipeline.execute(raise_on_error=False)
    return answers


async def run(client: Client, calls: Sequence[Call]) -> list[object]:
    """Carry out scripts in one trip and return their answers, errors of Redis among them."""
    answers = await send(client, [_evaluation(b"EVALSHA", call.script.digest, call) for call in calls])
    # Redis knows a script by its digest once it has seen it.
    unseen = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    if unseen:
        again = await send(client, [_evaluation(b"EVAL", calls[place].script.text, calls[place]) for place in unseen])
        for place, answer in zip(unseen, again, strict=True):
            answers[place] = answer
    return answers


def _evaluation(command: bytes, script: str, call: Call) -> Command:
    return (command, script, len(call.keys), *call.keys, *call.arguments)


def is_busy(error: Exception) -> bool:
    """Return whether it was a ready client's own pool that had no connection left."""
    return isinstance(error, MaxConnectionsError) or str(error) == "No connection available."


def checked(target: str | Secret | Client) -> Secret | Client:
    """Return a URL or a ready client that can be worked with.

    Raises:
        ConfigurationError: it is neither, or decodes responses.
    """
    if isinstance(target, (str, Secret)):
        secret = target if isinstance(target, Secret) else Secret(target)
        _check_url(secret)
        return secret
    if not isinstance(cast("object", target), Redis):
        raise ConfigurationError(
            f"redis was {type(target).__module__}.{type(target).__qualname__}; give a URL or a redis.asyncio.Redis"
        )
    if target.connection_pool.connection_kwargs.get("decode_responses"):
        raise ConfigurationError(
            "redis: the client was made with decode_responses=True; values are bytes, leave it out"
        )
    return target


def _check_url(url: Secret) -> None:
    try:
        pool = BlockingConnectionPool.from_url(url.reveal())
        # Made and thrown away: options the driver does not know are refused here only, not by `from_url`.
        pool.connection_class(**pool.connection_kwargs)
    except Exception as error:  # noqa: BLE001 - its text may hold the password
        raise ConfigurationError(f"redis: not a Redis URL ({type(error).__name__}); {URL_FORMS}") from None
    if pool.connection_kwargs.get("decode_responses"):
        raise ConfigurationError("redis: decode_responses in the URL; values are bytes, leave it out")
    # redis-py would take database 0 where it cannot read the number.
    if "path" not in pool.connection_kwargs and not re.fullmatch(r"/?[0-9]*", unquote(urlsplit(url.reveal()).path)):
        raise ConfigurationError(
            f"redis: what follows the host in the URL is not the number of a database; {URL_FORMS}"
        )
