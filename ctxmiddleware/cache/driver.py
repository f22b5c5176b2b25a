"""How Redis is reached: the only home of its driver, whose traps are closed here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias, cast
from urllib.parse import unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError, NoScriptError
from redis.maint_notifications import MaintNotificationsConfig

from ..errors import ConfigurationError
from ..secret import Secret
from .keys import RedisKeys
from .scripts import Script

URL_FORMS: Final = "write redis://host:6379/0, rediss://host:6379/0 or unix:///path/to/socket"

Client: TypeAlias = "Redis"


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """How Redis is asked.

    Args:
        timeout: seconds for connecting and for one answer; both together never take more than twice that.
        pool_size: connections per event loop.
        pool_wait: seconds a look-up waits for a free connection before it goes to the source instead.
        probe_every: seconds between background probes while Redis is down.
        fault_threshold: faults in a row after which only the background probe asks Redis.
        invalidation_wait: seconds an invalidation waits for a free connection, and again for Redis to take it.
    """

    timeout: float = 0.25
    pool_size: int = 20
    pool_wait: float = 0.05
    probe_every: float = 0.5
    fault_threshold: int = 3
    invalidation_wait: float = 1.0


def connect(url: Secret, options: RedisOptions) -> Client:
    """Return a client that connects when it is first used."""
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
    pool.connection_class = type("_Watched", (_Watched, pool.connection_class), {})
    return Redis.from_pool(pool)


class _Watched(AbstractConnection):
    """A connection that is not written to once it was lost."""

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


async def run(client: Client, script: Script, keys: RedisKeys, *arguments: bytes | int) -> object:
    """Carry out a script, which Redis knows by its digest once it has seen it."""
    try:
        return await client.evalsha(script.digest, len(keys), *keys, *arguments)
    except NoScriptError:
        return await client.eval(script.text, len(keys), *keys, *arguments)


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
