"""A forked process shares no open resource with its parent: it loads, subscribes, counts and locks anew."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import anyio
import httpx2
import msgspec
import pytest
import redis
import redis.asyncio

from ctxmiddleware import BearerJWT, Identity, SourceMisconfigured, SupabaseSource, UserContext, Zone
from ctxmiddleware.secret import Secret
from ctxmiddleware.testing import StaticSource
from examples.servers import SupabaseFront

from .backends import asyncio_only
from .cache.rig import PATIENT
from .forks import fork
from .identity.issuer import EC, ISSUER, asked, key_set, publishing, signed, wall_clock
from .people import ADA, BOB, context_of, known, plugin_of
from .waiting import PATIENCE, eventually_async

pytestmark = [
    pytest.mark.anyio,
    asyncio_only,
    # Python 3.12 and later warn of every fork in a process that has threads.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

# Which instances have confirmed is not the subject.
HASTY: Final = replace(PATIENT, confirm_timeout=0.1)
FIRST: Final = "first"
SECOND: Final = "second"


def titled(title: str) -> UserContext:
    """Return Ada's context with a title that shows when it was loaded."""
    context = context_of(ADA)
    return msgspec.structs.replace(context, employee=msgspec.structs.replace(context.employee, job_title=title))


def title_of(resolution: Any) -> str | None:
    """Return the title of a resolution's context."""
    title: str | None = resolution.context.employee.job_title
    return title


class Database(StaticSource[UserContext]):
    """A source whose row changes, and which counts its loads."""

    def __init__(self) -> None:
        super().__init__(known())
        self.label = "db"
        self.title = FIRST
        self.loads = 0

    async def fetch(self, identity: Identity) -> Any:
        self.loads += 1
        return titled(self.title) if identity.name == ADA else await super().fetch(identity)


@pytest.fixture
def source() -> Database:
    """A database in which Ada has a first title."""
    return Database()


async def test_a_child_serves_nothing_that_was_invalidated(redis_url: str, source: Database) -> None:
    """The child's memory is empty, and it confirms invalidations under a name of its own once it is open."""
    async with plugin_of(source, redis=redis_url, redis_options=PATIENT) as plugin:
        await plugin.resolve(ADA)
        assert plugin.peek(Identity(ADA)) is not None

        def work(wait: Callable[[], None]) -> object:
            wait()
            source.title, source.loads = SECOND, 0
            peeked = plugin.peek(Identity(ADA)) is not None
            before = plugin.stats()

            async def serve() -> object:
                async with plugin:
                    title = title_of(await plugin.resolve(ADA))
                    own = plugin.stats()
                    assert own.redis is not None
                    told = await plugin.invalidate(BOB)
                    return title, own.redis.instance, own.resolutions, [each.instance for each in told.confirmed]

            return peeked, before.memory.hits, before.memory.entries, asyncio.run(serve())

        child = fork(work)
        report = await plugin.invalidate(ADA)
        child.go_on()
        peeked, hits, entries, (title, instance, resolutions, confirmed) = await child.answer()
        stats = plugin.stats()
        assert stats.redis is not None
        assert (peeked, hits, entries, title) == (False, 0, 0, SECOND)
        assert resolutions == {"Database": 1}
        assert instance != stats.redis.instance
        assert confirmed == [instance, stats.redis.instance]
        assert [each.instance for each in report.confirmed] == [stats.redis.instance]


async def test_a_child_receives_invalidations_and_its_end_is_its_own(redis_url: str, source: Database) -> None:
    """The parent's report counts the open child; the parent keeps its place when the child leaves."""
    async with (
        plugin_of(source, redis=redis_url, redis_options=PATIENT) as plugin,
        plugin_of(source, redis=redis_url, redis_options=PATIENT) as other,
    ):
        await plugin.resolve(ADA)

        def work(wait: Callable[[], None]) -> object:
            async def serve() -> object:
                async with plugin:
                    first = title_of(await plugin.resolve(ADA))
                    stats = plugin.stats()
                    assert stats.redis is not None
                    source.title = SECOND
                    await eventually_async(lambda: plugin.peek(Identity(ADA)) is None)
                    return stats.redis.instance, first, title_of(await plugin.resolve(ADA))

            return asyncio.run(serve())

        child = fork(work)
        found: set[str] = set()
        answers: list[Any] = []

        async def invalidate_until_it_ends() -> None:
            # The child may be open and confirm before it has resolved.
            while not answers:
                report = await plugin.invalidate(ADA)
                found.update(each.instance for each in report.confirmed)
                await anyio.sleep(0.05)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(invalidate_until_it_ends)
            answers.append(await child.answer())
        [[instance, first, then]] = answers
        assert instance in found
        assert (first, then) == (FIRST, SECOND)
        report = await other.invalidate(ADA)
        mine = plugin.stats().redis
        assert mine is not None
        assert mine.instance in [each.instance for each in report.confirmed]
        assert report.silent == ()


async def test_the_parents_place_in_the_fleet_is_the_parents_to_leave(redis_url: str, source: Database) -> None:
    """The child's copy of the subscription logs nothing at its end."""
    async with plugin_of(source, redis=redis_url, redis_options=PATIENT) as plugin:
        inherited = plugin._assembly.redis
        assert inherited is not None
        child = fork(lambda _: inherited._fleet.leave() is None)
        assert await child.answer()


async def test_zones_come_though_their_load_was_under_way(source: Database) -> None:
    """A load that the parent had begun ends in the parent only: the child begins one of its own."""

    class Zones:
        begun = anyio.Event()
        is_slow = True

        async def fetch(self) -> Sequence[Zone]:
            if self.is_slow:
                self.begun.set()
                await anyio.sleep_forever()
            return [Zone("z1", "One", "r1")]

    zones = Zones()
    async with plugin_of(source, zones=zones) as plugin:
        await zones.begun.wait()

        def work(wait: Callable[[], None]) -> object:
            zones.is_slow = False

            async def load() -> int:
                async with plugin:
                    await plugin.zones_loaded()
                    loaded = plugin.stats().zones
                    assert loaded is not None
                    return loaded.count

            return asyncio.run(load())

        assert await fork(work).answer() == 1


async def test_locks_that_another_thread_held_are_open_in_the_child(redis_url: str, source: Database) -> None:
    """Each lock of the plugin is held by a thread that the child does not have."""
    async with publishing(key_set(EC)) as publisher:
        bearer = BearerJWT(publisher.url, issuer=ISSUER, wall_clock=wall_clock)
        async with plugin_of(source, bearer, redis=redis_url, redis_options=PATIENT) as plugin:
            await plugin.resolve(ADA)

            def work(wait: Callable[[], None]) -> object:
                async def serve() -> object:
                    async with plugin:
                        title = title_of(await plugin.resolve(ADA))
                        await plugin.invalidate(ADA)
                        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=plugin.admin)) as client:
                            refused = await client.post("http://admin/clear")
                        return title, refused.status_code, plugin.stats().name

                return asyncio.run(serve())

            with held(locks_of(plugin, bearer)):
                child = fork(work)
            assert await child.answer() == [FIRST, 403, "default"]


async def test_key_sets_and_verified_tokens_begin_anew(source: Database) -> None:
    """A key that was withdrawn since the fork admits no user in the child."""
    async with publishing(key_set(EC)) as publisher:
        bearer = BearerJWT(publisher.url, issuer=ISSUER, wall_clock=wall_clock)
        assert (await asked(bearer, signed())) is not None
        assert len(bearer._remembered) == 1

        def work(wait: Callable[[], None]) -> object:
            published = bearer._published
            assert published is not None
            return len(bearer._remembered), len(published._keys), published.confirmed_at < 0

        assert await fork(work).answer() == [0, 0, True]


async def test_a_ready_client_of_redis_is_not_shared_with_the_child(redis_url: str, source: Database) -> None:
    """The child makes connections as the client given does; parent and child never write to one."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        async with plugin_of(source, redis=client, namespace="n", redis_options=HASTY) as plugin:
            await plugin.resolve(ADA)
            with redis.Redis.from_url(redis_url) as server:
                ours = {each["id"] for each in server.client_list()}

                def work(wait: Callable[[], None]) -> object:
                    async def serve() -> object:
                        async with plugin:
                            titles = [title_of(await plugin.resolve(ADA)) for _ in range(3)]
                            await plugin.invalidate(ADA)
                            assert plugin._assembly.redis is not None
                            session = plugin._assembly.redis._sessions.current
                            own = await session.client.client_id()  # type: ignore[union-attr]  # of one server
                            return titles, own

                    return asyncio.run(serve())

                titles, own = await fork(work).answer()
                assert titles == [FIRST] * 3
                assert own not in ours
                await eventually_async(lambda: own not in {each["id"] for each in server.client_list()})
            await eventually_async(lambda: plugin.peek(Identity(ADA)) is None)
            assert title_of(await plugin.resolve(ADA)) == FIRST
        assert await client.ping()


async def test_a_ready_client_of_http_that_the_parent_used_is_refused(front: SupabaseFront) -> None:
    """The message says what to do instead."""
    async with httpx2.AsyncClient() as client:
        source = SupabaseSource(front.url, Secret(front.secret_key), client=client)
        async with source:
            await source.fetch(Identity(ADA))

            def work(wait: Callable[[], None]) -> object:
                with pytest.raises(SourceMisconfigured, match="used before this process was forked"):
                    asyncio.run(source.fetch(Identity(ADA)))
                return "refused"

            assert await fork(work).answer() == "refused"
            await source.fetch(Identity(ADA))


def locks_of(*owners: object) -> list[Any]:
    """Return every lock that these objects reach through objects of the package."""
    kinds = (type(threading.Lock()), type(threading.RLock()))
    seen: dict[int, object] = {}
    waiting: list[object] = list(owners)
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one
        if type(one).__module__.startswith("ctxmiddleware") or isinstance(one, (dict, list, tuple, set)):
            waiting.extend(gc.get_referents(one))
    return [one for one in seen.values() if isinstance(one, kinds)]


@contextmanager
def held(locks: Sequence[Any]) -> Iterator[None]:
    """Hold locks in another thread."""
    assert len(locks) > 10
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        for lock in locks:
            assert lock.acquire(timeout=PATIENCE)
        taken.set()
        done.wait()
        for lock in locks:
            lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert taken.wait(PATIENCE)
        yield
    finally:
        done.set()
        thread.join()
