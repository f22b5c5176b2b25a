"""How Redis is asked: with how its connections are made, the only home of its driver, whose traps are closed here."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, cast
from urllib.parse import unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    MaxConnectionsError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ....errors import ConfigurationError
from ....network import reason
from ....secret import Secret
from ..lua.script import Script
from ..options import RedisOptions
from .connection import Admit, Command, Locate, Server
from .target import URL_FORMS, Target, target_of

Client: TypeAlias = Redis | RedisCluster
"""A ready client, as it may be given in the place of a URL."""
Connection: TypeAlias = AbstractConnection
Refused = ResponseError
"""What Redis answers where it will not do what it is told."""


class Call(NamedTuple):
    """A script with its keys and arguments, and how many replicas must have what it wrote, in how many milliseconds."""

    script: Script[Any]
    keys: Sequence[str]
    arguments: Sequence[bytes | str | int]
    replicas: int = 0
    replicas_ms: int = 0


class NodeFailed(ConnectionError):
    """One of several servers cannot answer; what the others have said stands."""


class TooFewReplicas(ConnectionError):
    """What was written stands, but may be lost with its server."""


class Spread(ABC):
    """A client of several servers that share the keys among them."""

    @property
    @abstractmethod
    def is_down(self) -> bool:
        """Whether none of them is asked."""

    @abstractmethod
    async def run(self, calls: Sequence[Call]) -> list[object]:
        """Carry out scripts; in the place of what a server cannot answer is a NodeFailed."""

    @abstractmethod
    async def owner(self, key: str) -> Server:
        """Return the client of the server that has a key now."""

    @abstractmethod
    async def look_over(self) -> None:
        """Look at all of them."""

    @abstractmethod
    async def put_in_step(self) -> None:
        """Close all idle connections."""

    @abstractmethod
    async def mind(self) -> None:
        """Look after those that do not answer, for ever."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close all connections."""


Link: TypeAlias = Server | Spread


async def connection_for(client: Link, key: str) -> Connection:
    """Return a connection of its own, not yet connected, to the server that has a key now; the caller closes it.

    It speaks RESP3, or news of keys could not come while it waits for something else.
    Under Sentinel it finds the master each time it connects. In a cluster the key may belong to another server by the
    time it connects again: ask for another connection then.

    Raises:
        Exception: of a cluster, nobody has the key now.
    """
    server = await client.owner(key) if isinstance(client, Spread) else client
    pool = server.connection_pool
    return pool.connection_class(**{**pool.connection_kwargs, "protocol": 3})


async def leads_elsewhere(connection: Connection) -> bool:
    """Return whether the sentinels name another master by now than the one a connection leads to."""
    locate: Locate | None = getattr(connection, "locate", None)
    if locate is None:
        return False
    try:
        place = await locate()
    except Exception:  # noqa: BLE001 - sentinels that cannot say have not named another one
        return False
    return (getattr(connection, "host", None), getattr(connection, "port", None)) != place


async def look_at(client: Link, check: Admit) -> None:
    """Look at the server behind a client, over a connection that is open if there is one.

    Raises:
        Exception: whatever `check` raises.
    """
    if isinstance(client, Spread):
        await client.look_over()
        return
    pool = client.connection_pool
    locate: Locate | None = getattr(pool.connection_class, "locate", None)
    if locate is not None:
        place = await locate()
        idle: list[Any] = pool._available_connections
        if any((connection.host, connection.port) != place for connection in idle if connection.is_connected):
            # A former master that was cut off has not been told that it is none any more.
            await put_in_step(client)
    await check(lambda commands: send(client, commands))


async def put_in_step(client: Link) -> None:
    """Close the idle connections of a client."""
    if isinstance(client, Spread):
        await client.put_in_step()
    else:
        await client.connection_pool.disconnect(inuse_connections=False)


def room(client: Link, options: RedisOptions) -> int:
    """Return how many trips may be under way at a time: a pool smaller than that would refuse, as if at fault."""
    most = options.pool_size if isinstance(client, Spread) else client.connection_pool.max_connections
    return min(options.pool_size, most)


async def send(client: Server, commands: Sequence[Command]) -> list[object]:
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


async def run(client: Link, calls: Sequence[Call]) -> list[object]:
    """Carry out scripts in one trip, of a cluster one a node, and return their answers, errors of Redis among them."""
    if isinstance(client, Spread):
        return await client.run(calls)
    if any(call.replicas for call in calls):
        # As it is and not by its digest: with a script that Redis has not seen yet it would wait twice.
        return await _evaluated(client, [(b"EVAL", call.script.text) for call in calls], calls)
    answers = await _evaluated(client, [(b"EVALSHA", call.script.digest) for call in calls], calls)
    # Redis knows a script by its digest once it has seen it.
    unseen = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    if unseen:
        texts = [(b"EVAL", calls[place].script.text) for place in unseen]
        again = await _evaluated(client, texts, [calls[place] for place in unseen])
        for place, answer in zip(unseen, again, strict=True):
            answers[place] = answer
    return answers


async def _evaluated(client: Server, scripts: Sequence[Command], calls: Sequence[Call]) -> list[object]:
    commands: list[Command] = [
        (*script, len(call.keys), *call.keys, *call.arguments) for script, call in zip(scripts, calls, strict=True)
    ]
    replicas = max(call.replicas for call in calls)
    if not replicas:
        return await send(client, commands)
    # In the same trip, because it is about what its own connection wrote.
    wait: Command = (b"WAIT", replicas, _patience_ms(client, max(call.replicas_ms for call in calls)))
    *answers, found = await send(client, [*commands, wait])
    return [_if_replicated(answer, call, found) for answer, call in zip(answers, calls, strict=True)]


def _patience_ms(client: Server, wanted_ms: int) -> int:
    # A ready client may wait for no answer as long as that; and nought would be for ever.
    timeout = client.connection_pool.connection_kwargs.get("socket_timeout")
    return max(1, wanted_ms if timeout is None else min(wanted_ms, int(timeout * 500)))


def _if_replicated(answer: object, call: Call, found: object) -> object:
    if not call.replicas or isinstance(answer, Exception):
        return answer
    if isinstance(found, Exception):
        return TooFewReplicas(f"nobody can say whether replicas have it ({type(found).__name__}: is WAIT allowed?)")
    if not isinstance(found, int) or found < call.replicas:
        return TooFewReplicas(f"{found!r} of {call.replicas} replicas have it")
    return answer


def is_busy(error: Exception) -> bool:
    """Return whether it was a ready client's own pool that had no connection left."""
    return isinstance(error, MaxConnectionsError) or str(error) == "No connection available."


def reason_of(error: BaseException) -> str:
    """Return in a few words why Redis did not do what it was asked for; nothing that it was sent is in it."""
    kind = type(error).__name__
    if isinstance(error, (AuthenticationError, NoPermissionError)):
        return f"Redis refuses the login or the command ({kind}): look at user, password and rights"
    # A server may repeat in an error of its own what it was sent, the password of a login included.
    if isinstance(error, ResponseError):
        return f"Redis refused ({kind})"
    if isinstance(error, (RedisConnectionError, RedisTimeoutError, ConnectionError)):
        return str(error) or kind
    return reason(error) or kind


def has_moved(answer: object) -> bool:
    """Return whether a node of a cluster says that another one has the slot."""
    return isinstance(answer, MovedError)


def is_elsewhere(answer: object) -> bool:
    """Return whether a node of a cluster cannot answer because the slot has moved, or is being moved."""
    return isinstance(answer, (AskError, TryAgainError))


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
    if not isinstance(cast("object", target), (Redis, RedisCluster)):
        raise ConfigurationError(
            f"redis was {type(target).__module__}.{type(target).__qualname__}; give a URL or a redis.asyncio.Redis or "
            "RedisCluster"
        )
    made = target.connection_kwargs if isinstance(target, RedisCluster) else target.connection_pool.connection_kwargs
    if made.get("decode_responses"):
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
