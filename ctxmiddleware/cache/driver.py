"""How Redis is reached: the only home of its driver, whose traps are closed here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast
from urllib.parse import unquote, urlsplit

import anyio
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError, NoScriptError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from ..errors import ConfigurationError
from ..secret import Secret
from .connection import Admit, Command, Locate, watched
from .scripts import Script
from .target import URL_FORMS, Place, Target, target_of

Client: TypeAlias = "Redis"


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
    """

    timeout: float = 0.25
    pool_size: int = 20
    pool_wait: float = 0.05
    probe_every: float = 0.5
    check_every: float = 5.0
    fault_threshold: int = 3
    invalidation_wait: float = 1.0


def connect(
    url: Secret, options: RedisOptions, admit: Admit, *, alone: bool = False, locate: Locate | None = None
) -> Client:
    """Return a client that connects when it is first used.

    Args:
        url: where.
        options: timeouts and sizes.
        admit: called with each new connection before its first command.
        alone: whether it has one connection only, whatever the options and the URL say.
        locate: finds the server for each new connection, in place of the host in the URL.
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
        # It would tell the server the driver's name by a command that a narrow user may not use.
        driver_info=None,
        # With it, redis-py no longer looks for left-over bytes when it takes a connection from the pool.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    # Set here and not given above: the URL's scheme decides which kind it is.
    pool.connection_class = watched(pool.connection_class, admit, locate)
    if alone:
        pool.max_connections = 1
    return Redis.from_pool(pool)


async def once(url: Secret, place: Place, commands: Sequence[Command], seconds: float) -> list[object]:
    """Send commands over a connection of their own, and return their answers, errors of Redis among them.

    Args:
        url: how.
        place: whom, in place of the host in the URL.
        commands: what.
        seconds: for connecting, and for each answer.

    Raises:
        Exception: whatever the driver raises.
    """
    pool = BlockingConnectionPool.from_url(
        url.reveal(),
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        retry=Retry(NoBackoff(), 0),
        driver_info=None,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
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


async def connection_for(client: Client, key: str) -> AbstractConnection:  # noqa: ARG001 - whose server has it
    """Return a connection of its own, not yet connected, to the server that has a key now; the caller closes it."""
    connection: AbstractConnection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    return connection


async def look_at(client: Client, check: Admit) -> None:
    """Look at the server behind a client, over a connection that is open if there is one.

    Raises:
        Exception: whatever `check` raises.
    """
    pool = client.connection_pool
    locate: Locate | None = getattr(pool.connection_class, "locate", None)
    if locate is not None:
        place = await locate()
        idle: list[Any] = pool._available_connections
        if any((connection.host, connection.port) != place for connection in idle if connection.is_connected):
            # A former master that was cut off has not been told that it is none any more.
            await pool.disconnect(inuse_connections=False)
    await check(lambda commands: send(client, commands))


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


def checked(target: str | Secret | Client) -> Target | Client:
    """Return where a URL leads, or a ready client that can be worked with.

    Raises:
        ConfigurationError: it is neither, or decodes responses.
    """
    if isinstance(target, (str, Secret)):
        found = target_of(target if isinstance(target, Secret) else Secret(target))
        _check_url(found.url)
        if found.places_url is not None:
            _check_url(found.places_url)
        return found
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
