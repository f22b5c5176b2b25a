"""How one HTTP request reaches Supabase and what becomes of the client's errors."""

from __future__ import annotations

import ssl
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Final, Protocol, Self
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import httpx2

from .. import forking
from ..bounded import read_limited
from ..errors import SourceError, SourceMisconfigured
from ..network import NO_TLS, reason
from ..perloop import PerLoop
from ..secret import Secret
from .exchange import Call, HttpClient, NoReply, Reply, StreamedResponse
from .pool import Held, NoPlace, Pool, PoolOptions
from .quiet import quiet

# An answer is a few kilobytes; what is larger than this is not a context, and would fill the memory.
MAX_BODY: Final = 16 * 1024 * 1024
_FOR_EVER: Final = 1e9


class Transport:
    """Sends calls over pooled connections, one pool for each event loop; an async context manager, built without I/O.

    The proxies and certificates of the environment (HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE) are honoured. HTTP/1.1 only;
    no redirect is followed, for it would carry the key to another place.

    Args:
        options: limits of the pool and timeouts.
        client: a ready client to send with, which stays the caller's to close. Its own limits and its own loop are
            its owner's affair: `recycle` and `keepalive` do not reach it, `max_connections` bounds what is in flight.
        tls: whether any call goes to an https address; without it no certificates are read, and none is trusted.
        clock: monotonic seconds, by which connections come of age.
    """

    def __init__(
        self,
        options: PoolOptions,
        client: HttpClient | None = None,
        *,
        tls: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # How old the connections of a client that was given may become is its owner's affair.
        self._options = options if client is None else replace(options, recycle=_FOR_EVER, keepalive=_FOR_EVER)
        self._client = client
        self._client_use = forking.OneProcess()
        self._tls = tls
        self._clock = clock
        self._pools: PerLoop[Pool[_Connection]] = PerLoop("the connections to Supabase", self._open)

    async def __aenter__(self) -> Self:
        await self._pools.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pools.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Pool[_Connection]]:
        connect = await self._connector()
        async with anyio.create_task_group() as tasks:
            pool = Pool(self._options, connect, tasks, clock=self._clock)
            tasks.start_soon(pool.tend)
            try:
                yield pool
            finally:
                with anyio.CancelScope(shield=True):
                    await pool.aclose()
                tasks.cancel_scope.cancel()

    async def _connector(self) -> Callable[[str], _Connection]:
        if self._client is not None:
            lent = _Lent(self._client, self._options)
            return lambda _: lent
        # Reading the certificates takes 20 ms of disk and parsing: not on the event loop.
        context = await anyio.to_thread.run_sync(_prepared, self._tls)
        return lambda origin: _Owned(origin, context, self._options)

    async def send(self, call: Call) -> Reply:
        """Send one call and return the whole reply.

        Raises:
            NoReply: no connection became free, or it failed, or took too long.
            SourceError: the reply is too large or cannot be decompressed.
        """
        if self._client is not None and not self._client_use.claim():
            raise SourceMisconfigured(
                "the HTTP client given was used before this process was forked, and its connections are the parent's: "
                "leave client= out, or make client and plugin after the fork"
            )
        async with self._pools.using() as pool:
            reply = await self._on_a_connection(pool, call, fresh=False)
            if reply is None:
                # The connection reached its full age under the request; a new one has its whole life before it.
                reply = await self._on_a_connection(pool, call, fresh=True)
        if reply is None:
            raise NoReply("the request took longer than DB_POOL_RECYCLE lets a connection live", again=False)
        return reply

    async def _on_a_connection(self, pool: Pool[_Connection], call: Call, *, fresh: bool) -> Reply | None:
        parts = urlsplit(call.url)
        # Raised outside the handlers: the client's exceptions hold the key, the address and the URL in their frames.
        fault: SourceError | None = None
        try:
            async with pool.lend(f"{parts.scheme}://{parts.netloc}", fresh=fresh) as held:
                return await self._within_its_life(held, call)
        except _Retired:
            return None
        except NoPlace:
            fault = self._no_place()
        except SourceError:
            raise
        except Exception as error:  # noqa: BLE001 - the one place where the client's errors become ours
            lent = self._closed_by_owner()
            fault = lent or (_closed() if pool.closed else _translated(error, self._options))
        raise fault

    async def _within_its_life(self, held: Held[_Connection], call: Call) -> Reply:
        life = held.dies_at - self._clock()
        with anyio.move_on_after(min(self._options.total_timeout, life)), quiet():
            return await held.connection.send(call)
        if life < self._options.total_timeout:
            raise _Retired
        raise NoReply(f"no whole answer within {self._options.total_timeout:g} s", again=False, late=True)

    def _closed_by_owner(self) -> NoReply | None:
        if not getattr(self._client, "is_closed", False):
            return None
        return NoReply(
            "the HTTP client given was closed by its owner while the source was in use: close it after the plugin, or "
            "leave client= out",
            again=False,
            outage=True,
        )

    def _no_place(self) -> NoReply:
        return NoReply(
            f"no connection became free within DB_POOL_TIMEOUT ({self._options.pool_timeout:g} s): "
            f"DB_MAX_CONNECTIONS ({self._options.max_connections}) are busy",
            again=False,
            outage=True,
        )


def _closed() -> NoReply:
    return NoReply("the connections were closed under the request", again=False, outage=True)


class _Retired(Exception):
    """The connection came to its full age in the middle of a request."""


class _Connection(Protocol):
    async def send(self, call: Call) -> Reply: ...

    async def aclose(self) -> None: ...


class _Owned:
    """One connection of our own: a transport that may never hold two, so that the pool decides which lives how long."""

    def __init__(self, origin: str, context: ssl.SSLContext, options: PoolOptions) -> None:
        limits = httpx2.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None)
        try:
            self._transport = httpx2.AsyncHTTPTransport(verify=context, limits=limits, proxy=_proxy_for(origin))
        except (ImportError, ValueError) as error:
            raise SourceMisconfigured(
                f"the proxy this environment names cannot be used ({type(error).__name__})"
            ) from None
        self._timeout = httpx2.Timeout(options.read_timeout, connect=options.connect_timeout).as_dict()

    async def send(self, call: Call) -> Reply:
        request = httpx2.Request(
            call.method,
            call.url,
            headers=_shown(call.headers),
            content=call.body,
            extensions={"timeout": self._timeout},
        )
        response = await self._transport.handle_async_request(request)
        try:
            return await _whole(response)
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        await self._transport.aclose()


class _Lent:
    """A place on a client that is the user's."""

    def __init__(self, client: HttpClient, options: PoolOptions) -> None:
        self._client = client
        self._timeout = (options.connect_timeout, options.read_timeout, options.read_timeout, options.pool_timeout)
        self._total_timeout = options.total_timeout

    async def send(self, call: Call) -> Reply:
        # httpx 0.28 loses a connection of its pool for good when a request is cancelled: its timeouts end it instead.
        with anyio.move_on_after(self._total_timeout, shield=True):
            async with self._client.stream(
                call.method,
                call.url,
                content=call.body,
                headers=_shown(call.headers),
                timeout=self._timeout,
                follow_redirects=False,
            ) as response:
                return await _whole(response)
        raise NoReply(f"no whole answer within {self._total_timeout:g} s", again=False, late=True)

    async def aclose(self) -> None:
        """Leave it open: it is its owner's."""


def _prepared(tls: bool) -> ssl.SSLContext:  # noqa: FBT001 - passed through a thread
    context = httpx2.create_ssl_context() if tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Made for what it imports: the first miss would hold up its event loop with that for 80 ms.
    httpx2.AsyncHTTPTransport(verify=context)
    return context


async def _whole(response: StreamedResponse) -> Reply:
    body = await read_limited(response.aiter_bytes(), MAX_BODY)
    if body is None:
        raise SourceError(f"the answer is larger than {MAX_BODY} bytes")
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, headers, body)


def _shown(headers: Mapping[str, str | Secret]) -> dict[str, str]:
    shown = {name: value.reveal() if isinstance(value, Secret) else value for name, value in headers.items()}
    return {"user-agent": _user_agent(), "accept-encoding": "gzip, deflate", **shown}


@cache
def _user_agent() -> str:
    try:
        return f"ctxmiddleware/{version('ctxmiddleware')}"
    except PackageNotFoundError:  # run from a checkout
        return "ctxmiddleware"


def _proxy_for(origin: str) -> str | None:
    parts = urlsplit(origin)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    # Written as "10.0.0.1:3128" it is a proxy for curl and for httpx.AsyncClient, but not for the transport below it.
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _translated(error: Exception, options: PoolOptions) -> SourceError:
    # By name, because a client that was given may be of httpx as well as of httpx2: two families, the same names.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "PoolTimeout" in kinds:
        return NoReply("the given HTTP client had no connection free in time", again=False, outage=True)
    if "ConnectTimeout" in kinds:
        return NoReply(f"no connection within {options.connect_timeout:g} s", again=True, outage=True)
    if "TimeoutException" in kinds:
        return NoReply(f"no answer within {options.read_timeout:g} s", again=False, late=True)
    if "ConnectError" in kinds:
        told = reason(error) or type(error).__name__
        way_out = "; write http:// in SUPABASE_URL, or the port that does" if told == NO_TLS else ""
        return NoReply(f"cannot connect: {told}{way_out}", again=True, outage=True)
    if kinds & {"InvalidURL", "UnsupportedProtocol", "LocalProtocolError"}:
        return SourceError(f"the request could not be written ({type(error).__name__})")
    if "DecodingError" in kinds:
        return SourceError("the answer could not be decompressed")
    return NoReply(f"the connection was lost before the whole answer came ({type(error).__name__})", again=True)
