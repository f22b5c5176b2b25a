"""What a failed request becomes: no error of the client's, but a way out, and whether another try makes sense."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace
from typing import Any

import anyio
import httpx2
import pytest

from ctxmiddleware import SourceError, SourceMisconfigured
from ctxmiddleware.sources import transport
from ctxmiddleware.sources.exchange import Call, NoReply
from ctxmiddleware.sources.pool import Pool, PoolOptions
from ctxmiddleware.sources.transport import Transport, _proxy_for, _shown, _translated, _user_agent

from .conftest import Clock

pytestmark = pytest.mark.anyio
CALL = Call("GET", "http://db.example/rest/v1/rpc", {}, None)
OPTIONS = PoolOptions()


def _tells(error: Exception) -> tuple[type[SourceError], bool, bool, bool]:
    found = _translated(error, OPTIONS)
    is_no_reply = isinstance(found, NoReply)
    return (
        type(found),
        is_no_reply and found.again,  # type: ignore[attr-defined]  # as seen before
        is_no_reply and found.outage,  # type: ignore[attr-defined]  # as above
        is_no_reply and found.late,  # type: ignore[attr-defined]  # as above
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx2.PoolTimeout("x"), (NoReply, False, True, False)),
        (httpx2.ConnectTimeout("x"), (NoReply, True, True, False)),
        (httpx2.ReadTimeout("x"), (NoReply, False, False, True)),
        (httpx2.WriteTimeout("x"), (NoReply, False, False, True)),
        (httpx2.ConnectError("x"), (NoReply, True, True, False)),
        (httpx2.InvalidURL("x"), (SourceError, False, False, False)),
        (httpx2.UnsupportedProtocol("x"), (SourceError, False, False, False)),
        (httpx2.LocalProtocolError("x"), (SourceError, False, False, False)),
        (httpx2.DecodingError("x"), (SourceError, False, False, False)),
        (httpx2.ReadError("x"), (NoReply, True, False, False)),
        (httpx2.RemoteProtocolError("x"), (NoReply, True, False, False)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_error_of_the_client_says_whether_another_try_makes_sense(error: Exception, expected: object) -> None:
    """A request that may have been carried out is not repeated, and neither is one that cannot be written."""
    assert _tells(error) == expected


async def test_a_request_that_outlives_two_connections_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one is new, and had its whole life before it."""
    fresh: list[bool] = []

    async def retired(self: object, pool: object, call: Call, **given: bool) -> None:
        fresh.append(given["fresh"])

    monkeypatch.setattr(Transport, "_on_a_connection", retired)
    one = Transport(OPTIONS, tls=False)
    async with one:
        with pytest.raises(NoReply, match="longer than DB_POOL_RECYCLE") as raised:
            await one.send(CALL)
    assert (fresh, raised.value.again) == ([False, True], False)


class _Hung:
    """A client whose requests are not answered."""

    is_closed = False

    @asynccontextmanager
    async def stream(self, *_: object, **__: object) -> Any:
        """Wait."""
        await anyio.sleep_forever()
        yield


async def test_a_request_over_a_given_client_ends_with_its_whole_time() -> None:
    """A client's own timeouts count from byte to byte."""
    one = Transport(PoolOptions(total_timeout=0.02), _Hung())
    async with one:
        with pytest.raises(NoReply, match="no whole answer within") as raised:
            await one.send(CALL)
    assert (raised.value.again, raised.value.late) == (False, True)


class _Slow:
    """A connection that does not answer."""

    closed = False

    async def send(self, call: Call) -> Any:
        """Wait."""
        await anyio.sleep_forever()

    async def aclose(self) -> None:
        """Note it."""
        self.closed = True


@pytest.mark.parametrize(("recycle", "fresh"), [(3600.0, [False]), (0.05, [False, True])])
async def test_a_connection_that_does_not_answer_ends_with_the_request_or_with_its_age(
    recycle: float, fresh: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that came to its age is replaced once; otherwise the answer is late, and asked for once."""
    seen: list[bool] = []
    lend = Pool.lend

    def lending(self: Pool[Any], origin: str, *, fresh: bool = False) -> Any:
        seen.append(fresh)
        return lend(self, origin, fresh=fresh)

    async def connector(self: object) -> Any:
        return lambda _: _Slow()

    monkeypatch.setattr(Pool, "lend", lending)
    monkeypatch.setattr(Transport, "_connector", connector)
    one = Transport(PoolOptions(total_timeout=0.5 if recycle < 1 else 0.02, recycle=recycle), tls=False)
    async with one:
        with pytest.raises(NoReply, match="DB_POOL_RECYCLE" if len(fresh) > 1 else "no whole answer within 0.02"):
            await one.send(CALL)
    assert seen == fresh


async def test_a_connection_of_a_closed_pool_is_kept_by_nobody() -> None:
    """Its request has ended after the pool was closed: the place is free, and the connection is not idle."""
    async with anyio.create_task_group() as tasks:
        pool: Pool[_Slow] = Pool(OPTIONS, lambda _: _Slow(), tasks, clock=Clock())
        async with pool.lend("http://db") as held:
            await pool.aclose()
        assert held.connection.closed
    assert (pool._idle, pool._busy, pool._places_taken) == ([], set(), 0)


async def test_a_connection_that_came_of_age_under_its_request_is_closed_after_it() -> None:
    """And not lent once more."""
    clock = Clock()
    async with anyio.create_task_group() as tasks:
        pool: Pool[_Slow] = Pool(OPTIONS, lambda _: _Slow(), tasks, clock=clock)
        async with pool.lend("http://db") as held:
            clock.now += OPTIONS.recycle
        assert pool._idle == []
    assert held.connection.closed
    assert pool._places_taken == 0


async def test_idle_connections_stay_where_all_places_are_taken() -> None:
    """A borrower has the last place, and takes or closes an idle one itself."""
    clock = Clock()
    async with anyio.create_task_group() as tasks:
        pool: Pool[_Slow] = Pool(PoolOptions(max_connections=1), lambda _: _Slow(), tasks, clock=clock)
        async with pool.lend("http://db") as first:
            pass
        clock.now += OPTIONS.keepalive
        await pool._place()
        pool._retire_idle()
        assert pool._idle == [first]
        pool._places.release()
        pool._retire_idle()
        assert pool._idle == []
    assert first.connection.closed


@pytest.fixture
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("http", "https", "all", "no"):
        for written in (f"{name}_proxy", f"{name}_proxy".upper()):
            monkeypatch.delenv(written, raising=False)
    _user_agent.cache_clear()
    yield
    _user_agent.cache_clear()


@pytest.mark.usefixtures("_no_proxies")
@pytest.mark.parametrize(
    ("variables", "origin", "expected"),
    [
        ({}, "https://p.example", None),
        ({"https_proxy": "http://10.0.0.1:3128"}, "https://p.example", "http://10.0.0.1:3128"),
        ({"https_proxy": "10.0.0.1:3128"}, "https://p.example", "http://10.0.0.1:3128"),
        ({"https_proxy": "http://10.0.0.1:3128"}, "http://p.example", None),
        ({"all_proxy": "socks5://10.0.0.1:1080"}, "http://p.example", "socks5://10.0.0.1:1080"),
        ({"all_proxy": "http://a:1", "https_proxy": "http://b:2"}, "https://p.example", "http://b:2"),
        ({"https_proxy": "http://10.0.0.1:3128", "no_proxy": "p.example"}, "https://p.example", None),
        ({"https_proxy": "http://10.0.0.1:3128", "no_proxy": ".example"}, "https://p.example:8443", None),
    ],
)
def test_the_proxies_of_the_environment_are_used(
    variables: dict[str, str], origin: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that is written without a scheme, as for curl."""
    monkeypatch.setattr(urllib.request, "getproxies", urllib.request.getproxies_environment)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert _proxy_for(origin) == expected


@pytest.mark.usefixtures("_no_proxies")
async def test_a_proxy_that_cannot_be_used_is_a_mistake_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message does not repeat the address, which may hold a password."""
    monkeypatch.setenv("http_proxy", "gopher://user:hunter2@10.0.0.1:70")
    one = Transport(OPTIONS, tls=False)
    async with one:
        with pytest.raises(SourceMisconfigured, match="the proxy this environment names cannot be used") as raised:
            await one.send(CALL)
    assert "hunter2" not in str(raised.value)


@pytest.mark.usefixtures("_no_proxies")
def test_a_checkout_that_is_not_installed_has_a_name_without_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logs of the API name the client."""
    monkeypatch.setattr(transport, "version", lambda name: "1.2")
    assert _shown({})["user-agent"] == "ctxmiddleware/1.2"

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(transport, "version", missing)
    _user_agent.cache_clear()
    assert _shown({"x": "y"})["user-agent"] == "ctxmiddleware"


async def test_a_given_client_that_its_owner_has_closed_says_so() -> None:
    """Whatever the client raises then."""

    def stream(*_: object, **__: object) -> Any:
        raise RuntimeError("closed")

    closed: Any = SimpleNamespace(is_closed=True, stream=stream)
    one = Transport(OPTIONS, closed)
    async with one:
        with pytest.raises(NoReply, match="was closed by its owner"):
            await one.send(CALL)
