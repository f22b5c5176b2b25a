"""Whether two tenants, or two identity providers, share nothing but the invalidation of an address."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import anyio
import anyio.lowlevel
import pytest
import redis

from ctxmiddleware import BearerJWT, ContextPlugin, Identity, Loaded, UserContextMiddleware, first_of
from ctxmiddleware.cache.redis.keys import KeySpace

from .asgi import ask, http_scope
from .backends import ASYNCIO, asyncio_only
from .cache.rig import PATIENT
from .identity.issuer import EC, ISSUER, MALLORY, OCT, SECRET, asking, key_set, publishing, signed, wall_clock

ADA = "ada@example.org"
TENANTS = ("", "acme", "other", "acme\x00ada", "a")
IDENTITIES = [Identity(ADA, tenant=tenant) for tenant in TENANTS]

pytestmark = pytest.mark.anyio


class Numbered:
    """A source whose every answer is another one."""

    def __init__(self, begin: int) -> None:
        self.last = begin

    async def fetch(self, email: str) -> Loaded[str]:
        """Return the next number."""
        await anyio.lowlevel.checkpoint()
        self.last += 1
        return Loaded(f"{self.last}", origin="db")


@dataclass
class Pair:
    """Two processes that share a Redis."""

    one: ContextPlugin[str]
    two: ContextPlugin[str]


@pytest.fixture
async def pair(redis_url: str) -> AsyncIterator[Pair]:
    """Two plugins as two processes have them."""
    async with AsyncExitStack() as stack:
        plugins = [
            await stack.enter_async_context(
                ContextPlugin(source=Numbered(begin), context_type=str, redis=redis_url, redis_options=PATIENT)
            )
            for begin in (0, 1000)
        ]
        yield Pair(*plugins)


async def _of_each(plugin: ContextPlugin[str]) -> list[str | None]:
    found: dict[str, str | None] = {}

    async def resolve(identity: Identity) -> None:
        found[identity.tenant] = (await plugin.resolve(identity)).context

    async with anyio.create_task_group() as tasks:
        for identity in IDENTITIES:
            tasks.start_soon(resolve, identity)
    return [found[tenant] for tenant in TENANTS]


@asyncio_only
async def test_each_has_his_own_in_memory_and_in_redis(pair: Pair, redis_url: str) -> None:
    """Loaded once each, though they ask at the same moment; the other process finds each one's own."""
    first = await _of_each(pair.one)
    assert sorted(first, key=str) == ["1", "2", "3", "4", "5"]
    assert await _of_each(pair.one) == first
    assert await _of_each(pair.two) == first
    with redis.Redis.from_url(redis_url) as client:
        assert len([key for key in client.scan_iter() if b":v:" in key]) == len(TENANTS)


@asyncio_only
async def test_an_invalidation_of_the_address_reaches_all_of_them(pair: Pair) -> None:
    """In both processes; each is loaded again."""
    first = await _of_each(pair.one)
    assert await _of_each(pair.two) == first
    await pair.two.invalidate(ADA)
    again = await _of_each(pair.one)
    assert set(again).isdisjoint(first)
    assert len(set(again)) == len(TENANTS)
    assert await _of_each(pair.two) == again


@asyncio_only
async def test_one_s_value_under_another_s_key_is_nobody_s(pair: Pair, redis_url: str) -> None:
    """Whoever can write to Redis cannot hand one tenant's context to another by copying it."""
    assert await _of_each(pair.one)
    assert pair.one._assembly.redis is not None
    keys = KeySpace("default", pair.one._assembly.redis.codec.shape)
    values = [keys.of(identity.key).value for identity in IDENTITIES]
    with redis.Redis.from_url(redis_url) as client:
        client.set(values[1], client.get(values[0]) or b"", keepttl=True)
    context = (await pair.two.resolve(IDENTITIES[1])).context
    assert context is not None
    assert int(context) > 1000


@asyncio_only
async def test_watchers_are_told_of_their_own(pair: Pair) -> None:
    """An invalidation wakes both, and each gets what is his."""
    watches = [pair.one.watch(identity) for identity in IDENTITIES[:2]]
    before = [(await anext(watch)).context for watch in watches]
    await pair.two.invalidate(ADA)
    after = [(await anext(watch)).context for watch in watches]
    assert len({*before, *after}) == 4
    assert after == [(await pair.one.resolve(identity)).context for identity in IDENTITIES[:2]]


@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
async def test_two_identity_providers_know_two_people_by_one_address() -> None:
    """The second one's signature says nothing of the first one's users."""
    contexts: list[object] = []

    async def app(scope: object, receive: object, send: object) -> None:
        contexts.append(scope["user_context"])  # type: ignore[index]  # a mapping, as all scopes are

    async with publishing(key_set(EC)) as published:
        ways = first_of(
            BearerJWT(published.url, issuer=ISSUER, tenant="one", wall_clock=wall_clock),
            BearerJWT(secret=SECRET, issuer="https://other.example", tenant="two", wall_clock=wall_clock),
        )
        plugin = ContextPlugin(source=Numbered(0), context_type=str, identify=ways)
        middleware = UserContextMiddleware(app, plugin=plugin)
        one, two = signed(), signed(OCT, "HS256", iss="https://other.example")
        # Signed by the one, in the name of the other; and by nobody who is known.
        strange = signed(iss="https://other.example"), signed(OCT, "HS256"), signed(MALLORY)
        async with plugin:
            for token in (one, two, one, two, *strange):
                await ask(middleware, {**http_scope("/"), "headers": asking(token)["headers"]})
    assert contexts == ["1", "2", "1", "2", None, None, None]
