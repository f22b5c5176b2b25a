"""Whether the resolver answers with what it should, joins zones once, and reports what it did."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import msgspec
import pytest

from ctxmiddleware.cache.shared import Listener, Look, Reach, SharedTierFailed
from ctxmiddleware.cache.tiered import TieredCache
from ctxmiddleware.errors import InvalidationFailed, SourceError, SourceMisconfigured, SourceUnavailable
from ctxmiddleware.loading import Loading
from ctxmiddleware.principal import Identity
from ctxmiddleware.reports import Confirmed, InvalidationReport, Silent
from ctxmiddleware.resolver import MOST_ORIGINS, WARM_AT_ONCE, Resolver
from ctxmiddleware.sources.base import Loaded
from ctxmiddleware.stats import Counters
from ctxmiddleware.testing import FakeClock, StaticSource
from ctxmiddleware.zones.base import ZoneSnapshot
from tests.cache.rig import STEADY

pytestmark = pytest.mark.anyio
ADA, BOB = Identity("Ada@Example.org"), Identity("bob@example.org")


@dataclass
class Rig:
    resolver: Resolver[str]
    counters: Counters
    clock: FakeClock
    cache: TieredCache[str]


@asynccontextmanager
async def _resolver(source: Any, **options: Any) -> AsyncIterator[Rig]:
    counters, clock = Counters(), FakeClock()
    shared = options.pop("tier", None)
    loading: Loading[str] = Loading(source, context_type=str, exact=shared is not None)
    cache: TieredCache[str] = TieredCache(STEADY, loading, shared=shared, counters=counters, clock=clock)
    resolver = Resolver(cache, loading, shared=shared is not None, counters=counters, clock=clock, **options)
    async with cache.flights.opened:
        yield Rig(resolver, counters, clock, cache)


async def test_answers_from_the_source_and_then_from_memory() -> None:
    """The first answer carries the source's word, the next ones memory's, with their age; spellings are one user."""
    source = StaticSource({"ada@example.org": "ada"}, origin="rpc")
    async with _resolver(source) as rig:
        assert rig.resolver.peek(ADA) is None
        first = await rig.resolver.resolve(ADA)
        rig.clock.advance(7)
        second = await rig.resolver.resolve(Identity(" ADA@example.org"))
        assert rig.resolver.peek(ADA) == second
    assert (first.context, first.origin, first.age, first.stale) == ("ada", "rpc", 0.0, False)
    assert (second.context, second.origin, second.age) == ("ada", "memory", 7.0)
    assert source.calls == [Identity("ada@example.org")]
    assert rig.counters.by_label("resolution") == {"memory": 2, "rpc": 1}


async def test_tenants_are_apart_and_an_invalidation_reaches_them_all() -> None:
    """Two tenants never share a context; the address is what is invalidated."""
    source = StaticSource({"ada@example.org": "ada"})
    async with _resolver(source) as rig:
        for tenant in ("", "acme", "acme"):
            await rig.resolver.resolve(Identity("ada@example.org", tenant=tenant))
        assert len(source.calls) == 2
        report = await rig.resolver.invalidator.one(ADA.cache_key[1])
        assert report.memory == 2


@dataclass
class Bare:
    """A source that answers without a word of its own."""

    answers: dict[str, object] = field(default_factory=dict)
    told: list[Identity | None] = field(default_factory=list)

    async def fetch(self, identity: Identity) -> Any:
        return self.answers.get(identity.name)

    def invalidated(self, identity: Identity | None, *, ago: float) -> None:
        assert ago == 0
        self.told.append(identity)


async def test_an_unknown_user_is_an_answer() -> None:
    """No context, remembered for a while, told apart from a failure; a source without a word lends its name."""
    async with _resolver(Bare()) as rig:
        found = await rig.resolver.resolve(ADA)
        assert (found.context, found.origin) == (None, "Bare")
        again = rig.resolver.peek(ADA)
        assert again is not None
        assert (again.context, again.origin) == (None, "memory")


@pytest.mark.parametrize("answer", [5, Loaded(b"bytes"), {"email": "x"}], ids=repr)
async def test_a_source_of_another_type_is_named(answer: object) -> None:
    """What is not of the plugin's type is a configuration error, and is not kept."""
    async with _resolver(Bare({ADA.name: answer})) as rig:
        with pytest.raises(SourceMisconfigured, match="context_type is str"):
            await rig.resolver.resolve(ADA)
        assert len(rig.cache.memory) == 0


async def test_zones_are_joined_once_for_each_entry_and_snapshot() -> None:
    """A hit joins nothing; a new snapshot is joined at the next read; an unknown user is joined with nothing."""
    snapshots = [ZoneSnapshot({}, 1.0, 0), ZoneSnapshot({}, 2.0, 0)]
    current = snapshots[0]
    joined: list[tuple[str, ZoneSnapshot]] = []

    def join(value: str, snapshot: ZoneSnapshot) -> str:
        joined.append((value, snapshot))
        return f"{value} with zones {len(joined)}"

    source = StaticSource({"ada@example.org": "ada"})
    async with _resolver(source, zones=lambda: current, zones_for=join) as rig:
        for _ in range(3):
            assert (await rig.resolver.resolve(ADA)).context == "ada with zones 1"
        current = snapshots[1]
        for _ in range(3):
            peeked = rig.resolver.peek(ADA)
            assert peeked is not None
            assert peeked.context == "ada with zones 2"
        assert (await rig.resolver.resolve(BOB)).context is None
    assert [snapshot for _, snapshot in joined] == snapshots
    assert len(source.calls) == 2


@pytest.mark.parametrize(("expires_at", "served"), [(None, True), (5000.1, True), (5000.0, False), (4000.0, False)])
async def test_nothing_stale_is_served_for_an_expired_identity(expires_at: float | None, *, served: bool) -> None:
    """A token that has expired meanwhile gets no context past its time, and none is counted as answered."""
    source = StaticSource({"ada@example.org": "ada"})
    identity = Identity("ada@example.org", expires_at=expires_at)
    async with _resolver(source, wall_clock=lambda: 5000.0) as rig:
        await rig.resolver.resolve(identity)
        rig.clock.advance(900)
        source._contexts["ada@example.org"] = SourceUnavailable("down")
        for _ in range(2):
            if served:
                assert (await rig.resolver.resolve(identity)).stale
            else:
                with pytest.raises(SourceUnavailable, match="expired"):
                    await rig.resolver.resolve(identity)
    assert rig.counters.by_label("resolution") == {"static": 1, **({"memory": 2} if served else {})}


class Tier:
    """A shared tier that takes invalidations, or does not."""

    def __init__(self, failure: SharedTierFailed | None = None) -> None:
        self.failure = failure
        self.names: list[str | None] = []
        self.is_listed = True

    async def look(self, keys: Sequence[object], keep_ms: int) -> list[Look[str] | None]:
        return [None] * len(keys)

    async def store(self, values: Sequence[object]) -> list[bool | None]:
        return [None] * len(values)

    def listen(self, listener: Listener) -> None:
        self.listener = listener

    async def invalidate(self, name: str | None, keep_ms: int, partitions: Sequence[str] = ()) -> Reach:
        self.names.append(name)
        if self.failure is not None:
            raise self.failure
        return Reach("me", (("one", 2.5),), (("two", 5.0),))


async def test_without_redis_the_report_says_this_process_only(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody else was told, and nobody is said to have been."""
    source = Bare({ADA.name: "ada"})
    caplog.set_level(logging.INFO, "ctxmiddleware")
    async with _resolver(source) as rig:
        await rig.resolver.resolve(ADA)
        report = await rig.resolver.invalidator.one(ADA.cache_key[1])
        cleared = await rig.resolver.invalidator.one(None)
    assert (report.reach, report.memory, report.redis, report.others_stop_within) == (
        "this process only",
        1,
        "absent",
        None,
    )
    assert cleared.memory == 0
    assert len(report.confirmed) == 1
    assert source.told == [Identity("ada@example.org"), None]
    assert [record.message for record in caplog.records] == ["contexts were invalidated"] * 2
    assert "@" not in caplog.text + repr([vars(record) for record in caplog.records])


async def test_with_redis_the_report_says_when_others_stop() -> None:
    """The fleet was told, and others serve the old no longer than they trust their memory."""
    tier = Tier()
    async with _resolver(StaticSource({}), tier=tier) as rig:
        report = await rig.resolver.invalidator.one(ADA.cache_key[1])
    assert (report.reach, report.redis, report.others_stop_within) == ("fleet", "done", 5.0)
    assert report.confirmed == (Confirmed("me", 0.0), Confirmed("one", 2.5))
    assert report.silent == (Silent("two", 5.0),)
    assert report.duration_ms >= 0
    assert tier.names == [ADA.cache_key[1]]


async def test_an_invalidation_redis_did_not_take_is_raised_with_its_report(caplog: pytest.LogCaptureFixture) -> None:
    """The report says what was done all the same, nobody is promised anything, and the log is an error."""
    async with _resolver(StaticSource({"ada@example.org": "ada"}), tier=Tier(SharedTierFailed("gone"))) as rig:
        await rig.resolver.resolve(ADA)
        with pytest.raises(InvalidationFailed) as told:
            await rig.resolver.invalidator.one(ADA.cache_key[1])
        assert rig.resolver.peek(ADA) is None
    report = told.value.report
    assert isinstance(report, InvalidationReport)
    assert (report.redis, report.memory, report.others_stop_within) == ("failed", 1, None)
    assert isinstance(told.value.__cause__, SharedTierFailed)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "@" not in caplog.text + str(told.value)


async def test_warming_resolves_many_a_few_at_a_time(caplog: pytest.LogCaptureFixture) -> None:
    """Each user is counted as known, unknown or failed; a failure stops nobody and names nobody."""
    most = 0

    class Slow:
        async def fetch(self, identity: Identity) -> str | None:
            nonlocal most
            most = max(most, len(rig.cache.flights))
            await anyio.lowlevel.checkpoint()
            if identity.name.startswith("bad"):
                raise SourceError("a broken row")
            return None if identity.name.startswith("new") else identity.name

    async with _resolver(Slow()) as rig:
        names = [f"{kind}{number}@example.org" for kind in ("user", "bad", "new") for number in range(150)]
        report = await rig.resolver.warm([Identity(name) for name in names])
        assert (report.warmed, report.failed, report.unknown) == (150, 150, 150)
        assert rig.resolver.peek(Identity("user3@example.org")) is not None
        assert (await rig.resolver.warm([])).warmed == 0
    assert 1 < most <= WARM_AT_ONCE
    assert "@" not in caplog.text


async def test_reports_travel_as_json() -> None:
    """What the admin shows is what the plugin returns."""
    async with _resolver(StaticSource({})) as rig:
        report = await rig.resolver.invalidator.one(None)
    assert msgspec.json.decode(msgspec.json.encode(report))["reach"] == "this process only"


async def test_stale_answers_are_counted_one_by_one() -> None:
    """Twenty callers who are served something stale are twenty stale answers, whatever the source was asked."""
    source: StaticSource[str] = StaticSource({ADA.name: "ada"})
    async with _resolver(source) as rig:
        await rig.resolver.resolve(ADA)
        source._contexts[ADA.name] = SourceUnavailable("down")
        rig.clock.advance(900)
        async with anyio.create_task_group() as callers:
            for _ in range(20):
                callers.start_soon(rig.resolver.resolve, ADA)
    assert rig.counters.get("stale") == 20
    assert rig.counters.by_label("resolution") == {"memory": 20, "static": 1}


class Longer(str):
    """A subclass of the context type, with more to it."""

    __slots__ = ("more",)


@pytest.mark.parametrize("tier", [None, object()], ids=["memory only", "beside a tier the fleet shares"])
async def test_a_subclass_of_the_context_type_would_lose_fields_on_its_way(tier: object) -> None:
    """In memory a subclass is as good as its base; through Redis it would come back as the base: it is refused."""

    class Tier:
        is_listed = True

        def listen(self, listener: Listener) -> None:
            pass

        async def look(self, keys: Sequence[object], keep_ms: int) -> list[Look[str] | None]:
            return [None] * len(keys)

    async with _resolver(Bare({ADA.name: Longer("ada")}), **({} if tier is None else {"tier": Tier()})) as rig:
        if tier is None:
            assert (await rig.resolver.resolve(ADA)).context == "ada"
        else:
            with pytest.raises(SourceMisconfigured, match="where context_type is str"):
                await rig.resolver.resolve(ADA)


async def test_origins_are_counted_apart_up_to_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    """A source that writes an id into its origin would fill memory with counters."""

    class Ids(StaticSource[str]):
        async def fetch(self, identity: Identity) -> Loaded[str]:
            return Loaded("context", origin=f"row {identity.name}")

        async def fetch_many(self, identities: Sequence[Identity]) -> dict[Identity, Loaded[str] | SourceError]:
            return {each: await self.fetch(each) for each in identities}

    async with _resolver(Ids({})) as rig:
        for number in range(MOST_ORIGINS + 10):
            resolution = await rig.resolver.resolve(Identity(f"user{number}@example.org"))
            assert resolution.origin == f"row user{number}@example.org"
        counted = rig.counters.by_label("resolution")
    assert len(counted) == MOST_ORIGINS + 1
    assert counted["other"] == 10
    assert ["different origins" in record.message for record in caplog.records] == [True]
