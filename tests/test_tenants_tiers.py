"""One address at several identity providers: entries of their own in every tier, and one invalidation for them all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest

from ctxmiddleware import BatchSource, CachePolicy, ContextPlugin, Identity, Loaded, UserContext

from .backends import asyncio_only
from .cache.rig import PATIENT
from .people import ADA, context_of
from .waiting import eventually_async

TENANTS = ("", "acme", "umbrella")
ADAS = [Identity(ADA, tenant=tenant) for tenant in TENANTS]
# Nothing is refreshed behind an answer, so that each load is one that somebody waited for.
POLICY = CachePolicy(ttl=600.0, refresh_ahead=1.0, jitter=0.0, untrusted_ttl=60.0)
# Where memory and Redis are: one process without Redis, one with it, and three with one Redis.
TOPOLOGIES = {"l1": (1, False), "l1_l2": (1, True), "fleet": (3, True)}

pytestmark = [pytest.mark.anyio, asyncio_only]


class Numbered(BatchSource[UserContext]):
    """Knows everybody, and numbers its answers, so that no two loads bring the same."""

    label = "numbered"

    def __init__(self) -> None:
        self.loads = 0
        self.batches: list[tuple[Identity, ...]] = []

    async def fetch(self, identity: Identity) -> Loaded[UserContext]:
        """Return a context with the next number."""
        self.loads += 1
        await anyio.lowlevel.checkpoint()
        return Loaded(context_of(identity.name, number=self.loads), "source")

    async def fetch_many(self, identities: Sequence[Identity]) -> dict[Identity, Loaded[UserContext]]:
        """Do so for many."""
        self.batches.append(tuple(identities))
        return {identity: await self.fetch(identity) for identity in identities}


class Fleet:
    """Some processes that share a source, and a Redis where there is one."""

    def __init__(self, plugins: list[ContextPlugin[UserContext]], source: Numbered) -> None:
        self.plugins = plugins
        self.source = source

    async def numbers(self, plugin: ContextPlugin[UserContext]) -> list[int]:
        """Return the number of each tenant's context, asked one after the other."""
        return [await number(plugin, identity) for identity in ADAS]

    def held(self) -> list[str]:
        """Return the tenants of those who are in memory anywhere."""
        found = [(plugin, identity) for plugin in self.plugins for identity in ADAS]
        return [identity.tenant for plugin, identity in found if plugin.peek(identity) is not None]


async def number(plugin: ContextPlugin[UserContext], identity: Identity) -> int:
    """Return the number of somebody's context."""
    context = (await plugin.resolve(identity)).context
    assert context is not None
    return context.employee.id


@asynccontextmanager
async def fleet_of(count: int, url: str | None) -> AsyncIterator[Fleet]:
    """Return so many processes."""
    source = Numbered()
    async with AsyncExitStack() as stack:
        plugins = [ContextPlugin(source=source, redis=url, redis_options=PATIENT, policy=POLICY) for _ in range(count)]
        for plugin in plugins:
            await stack.enter_async_context(plugin)
            tier = plugin._assembly.redis
            if tier is not None:
                await eventually_async(tier.is_heard)
        yield Fleet(plugins, source)


@pytest.fixture(params=TOPOLOGIES)
async def fleet(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Fleet]:
    """Each topology in turn."""
    count, is_shared = TOPOLOGIES[request.param]
    async with fleet_of(count, redis_url if is_shared else None) as found:
        yield found


async def test_each_tenant_has_an_entry_of_its_own(fleet: Fleet) -> None:
    """A load for each, and from then on each answers with its own, from memory and in every process from Redis."""
    for plugin in fleet.plugins * 2:
        assert await fleet.numbers(plugin) == [1, 2, 3]
    assert fleet.source.loads == 3


async def test_loads_at_the_same_time_are_not_shared(fleet: Fleet) -> None:
    """Callers of one tenant share a load, those of another wait for their own, in the process and through leases."""
    found: dict[str, set[int]] = {tenant: set() for tenant in TENANTS}

    async def ask(plugin: ContextPlugin[UserContext], identity: Identity) -> None:
        found[identity.tenant].add(await number(plugin, identity))

    async with anyio.create_task_group() as tasks:
        for plugin in fleet.plugins * 5:
            for identity in ADAS:
                tasks.start_soon(ask, plugin, identity)
    # In one batch the identity of each tenant travels once.
    assert all(len(set(batch)) == len(batch) for batch in fleet.source.batches)
    assert len(set.union(*found.values())) == len(TENANTS)
    assert [len(numbers) for numbers in found.values()] == [1, 1, 1]
    assert await fleet.numbers(fleet.plugins[0]) == [next(iter(found[tenant])) for tenant in TENANTS]
    assert sorted(fleet.held()) == sorted(TENANTS * len(fleet.plugins))


async def test_an_invalidation_of_the_address_reaches_all_of_them(fleet: Fleet) -> None:
    """In every process and tier: the next answer of each tenant is a new load's, and nobody keeps an old one."""
    for plugin in fleet.plugins:
        await fleet.numbers(plugin)
    report = await fleet.plugins[0].invalidate(ADA.upper())
    assert report.memory == len(TENANTS)
    assert fleet.held() == []
    for plugin in fleet.plugins[::-1]:
        assert await fleet.numbers(plugin) == [4, 5, 6]


async def test_warming_and_watching_keep_them_apart(fleet: Fleet) -> None:
    """What was warmed for one tenant answers that one; a watch follows its own entry, and hears of the address."""
    plugin = fleet.plugins[-1]
    assert (await plugin.warm(ADAS[:2])).warmed == 2
    assert sorted(fleet.held()) == sorted(TENANTS[:2])
    changes = [plugin.watch(identity) for identity in ADAS]
    before = [(await anext(each)).context for each in changes]
    await fleet.plugins[0].invalidate(ADA)
    after = [(await anext(each)).context for each in changes]
    assert not set(filter(None, before)) & set(filter(None, after))
    assert await fleet.numbers(plugin) == [context.employee.id for context in after if context is not None]


async def test_what_was_hot_is_recalled_for_the_tenant_that_asked(redis_url: str) -> None:
    """An instance that begins has in memory who was asked for, and not the same address elsewhere."""
    async with fleet_of(1, redis_url) as old:
        for _ in range(2):
            await number(old.plugins[0], ADAS[1])
        warming = old.plugins[0]._assembly.cache.warming
        assert warming is not None
        await warming.remember()
        async with fleet_of(1, redis_url) as new:
            await eventually_async(lambda: new.plugins[0].stats().loads.warmed == 1)
            assert new.held() == ["acme"]


AMBIGUOUS = [
    (Identity("b@c", tenant="a"), Identity("a@b@c")),
    (Identity("c@d", tenant="a\0b"), Identity("b\0c@d", tenant="a")),
    (Identity("\0c@d", tenant="a"), Identity("c@d", tenant="a\0")),
    (Identity("c@d", tenant="A"), Identity("c@d", tenant="a")),
    (Identity("c@d", tenant=" "), Identity("c@d")),
]


@pytest.mark.parametrize(("one", "other"), AMBIGUOUS)
async def test_no_two_pairs_of_tenant_and_address_are_taken_for_one(
    one: Identity, other: Identity, fleet: Fleet
) -> None:
    """Even where both run together to the same text, or to the same key in Redis, neither is given the other's."""
    for plugin in fleet.plugins:
        mine, others = (await plugin.resolve(one)).context, (await plugin.resolve(other)).context
        assert mine is not None
        assert others is not None
        assert mine != others
        assert (mine.email, others.email) == (one.name, other.name)
