"""What a watch of one user yields, when it ends, and what it leaves behind, with memory only."""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest

from ctxmiddleware import ContextPlugin, Identity, Loaded, Resolution, SourceUnavailable, UserContext, Zone
from ctxmiddleware.cache.policy import CachePolicy
from ctxmiddleware.errors import ContextError
from ctxmiddleware.model import Region
from ctxmiddleware.testing import FakeClock, StaticSource
from ctxmiddleware.watching import Watching
from tests.people import ADA, BOB, NOBODY, context_of, plugin_of
from tests.waiting import PATIENCE, eventually, eventually_async

pytestmark = pytest.mark.anyio

STEADY = CachePolicy(jitter=0, refresh_ahead=1)


class Rows(StaticSource[UserContext]):
    """A source whose rows a test changes, and which it lets fail."""

    def __init__(self, *contexts: UserContext) -> None:
        super().__init__({each.email: each for each in contexts})
        self.rows = self._contexts

    def put(self, email: str, number: int = 1, *, is_active: bool = True) -> None:
        """Change somebody."""
        self.rows[email] = context_of(email, number=number, is_active=is_active)

    @property
    def asked(self) -> list[str]:
        """Return whom it was asked for."""
        return [each.name for calls in (self.calls, *self.batches) for each in calls]


class Told:
    """What a task that watches has been told."""

    def __init__(self, plugin: ContextPlugin[UserContext], identity: str | Identity = ADA) -> None:
        self.changes = plugin.watch(identity)
        self.resolutions: list[Resolution[UserContext]] = []
        self.error: ContextError | None = None
        self.is_over = False

    async def run(self) -> None:
        """Watch to the end."""
        try:
            async for resolution in self.changes:
                self.resolutions.append(resolution)
        except ContextError as error:
            self.error = error
        self.is_over = True

    @property
    def numbers(self) -> list[int | None]:
        """The number in each context; None for an unknown user."""
        return [None if each.context is None else each.context.employee.id for each in self.resolutions]

    async def numbered(self, *numbers: int | None) -> None:
        """Wait until these were told, in their order."""
        await eventually_async(lambda: self.numbers == list(numbers))


def waiting(plugin: ContextPlugin[UserContext]) -> int:
    """Return how many wait for news."""
    return len(plugin._assembly.cache.watchers)


async def next_of(changes: AsyncIterator[Resolution[UserContext]]) -> UserContext | None:
    """Return the next context, within a bounded time."""
    with anyio.fail_after(PATIENCE):
        return (await anext(changes)).context


async def test_it_begins_with_what_is_in_force_and_tells_what_has_changed() -> None:
    """A change that was invalidated is told at once, an invalidation that changed nothing is not."""
    source = Rows(context_of(ADA))
    async with plugin_of(source, policy=STEADY) as plugin, anyio.create_task_group() as tasks:
        told = Told(plugin)
        tasks.start_soon(told.run)
        await told.numbered(1)
        await eventually_async(lambda: waiting(plugin) == 1)
        await plugin.invalidate(ADA)
        await eventually_async(lambda: len(source.asked) == 2)
        source.put(ADA, 2)
        await plugin.invalidate(" ADA@example.com ")
        await told.numbered(1, 2)
        source.put(ADA, 3)
        await plugin.clear()
        await told.numbered(1, 2, 3)
        tasks.cancel_scope.cancel()


async def test_a_revocation_is_told() -> None:
    """Inactive and unknown are changes like any other, and so is the return of a user."""
    source = Rows(context_of(ADA))
    async with plugin_of(source, policy=STEADY) as plugin:
        changes = plugin.watch(Identity(ADA))
        first = await next_of(changes)
        assert first is not None
        assert plugin.is_active(first)
        source.put(ADA, is_active=False)
        await plugin.invalidate(ADA)
        inactive = await next_of(changes)
        assert inactive is not None
        assert not plugin.is_active(inactive)
        del source.rows[ADA]
        await plugin.invalidate(ADA)
        assert await next_of(changes) is None
        source.put(ADA)
        await plugin.invalidate(ADA)
        assert await next_of(changes) == first


async def test_an_unknown_user_may_be_watched() -> None:
    """Who is not there yet is told as unknown, and then as known."""
    source = Rows()
    async with plugin_of(source, policy=STEADY) as plugin:
        changes = plugin.watch(NOBODY)
        assert await next_of(changes) is None
        source.put(NOBODY)
        await plugin.invalidate(NOBODY)
        assert await next_of(changes) == context_of(NOBODY)


async def test_what_changes_between_two_waits_is_told() -> None:
    """Nobody has to be waiting when it happens."""
    source = Rows(context_of(ADA))
    async with plugin_of(source, policy=STEADY) as plugin:
        changes = plugin.watch(ADA)
        await next_of(changes)
        assert waiting(plugin) == 0
        source.put(ADA, 2)
        await plugin.invalidate(ADA)
        assert await next_of(changes) == context_of(ADA, number=2)


async def test_after_its_time_it_is_resolved_again_by_itself() -> None:
    """A change that nothing invalidates is told once the policy's ttl has passed, by one look."""
    source = Rows(context_of(ADA))
    async with plugin_of(source, policy=replace(STEADY, ttl=0.2)) as plugin:
        changes = plugin.watch(ADA)
        await next_of(changes)
        source.put(ADA, 2)
        assert await next_of(changes) == context_of(ADA, number=2)
        assert source.asked == [ADA, ADA]


async def test_before_its_time_it_is_not_resolved_again() -> None:
    """A watch waits for news and asks for nothing, though the source would give something else."""
    source = Rows(context_of(ADA))
    async with plugin_of(source, policy=STEADY) as plugin, anyio.create_task_group() as tasks:
        told = Told(plugin)
        tasks.start_soon(told.run)
        await told.numbered(1)
        source.put(ADA, 2)
        await eventually_async(lambda: waiting(plugin) == 1)
        await anyio.wait_all_tasks_blocked()
        assert (source.asked, told.numbers) == ([ADA], [1])
        tasks.cancel_scope.cancel()


async def test_a_refresh_by_somebody_else_is_told() -> None:
    """What a request's refresh behind its answer has brought is not kept from those who watch."""
    source, clock = Rows(context_of(ADA)), FakeClock()
    async with plugin_of(source, policy=replace(STEADY, refresh_ahead=0.5), clock=clock) as plugin:
        changes = plugin.watch(ADA)
        await next_of(changes)
        async with anyio.create_task_group() as tasks:
            told: list[UserContext | None] = []

            async def wait() -> None:
                told.append(await next_of(changes))

            tasks.start_soon(wait)
            await eventually_async(lambda: waiting(plugin) == 1)
            source.put(ADA, 2)
            clock.advance(STEADY.ttl * 0.6)
            assert (await plugin.resolve(ADA)).context == context_of(ADA)
        assert told == [context_of(ADA, number=2)]


async def test_it_ends_when_the_identity_expires() -> None:
    """At that moment, though nothing has changed and nobody has called."""
    now = 100.0
    async with plugin_of(Rows(context_of(ADA)), policy=STEADY) as plugin, anyio.create_task_group() as tasks:
        plugin._watching.wall_clock = lambda: now
        told = Told(plugin, Identity(ADA, expires_at=now + 0.2))
        tasks.start_soon(told.run)
        await told.numbered(1)
        await eventually_async(lambda: waiting(plugin) == 1)
        assert not told.is_over
        now += 0.2
        await eventually_async(lambda: told.is_over)
        assert (told.numbers, told.error, waiting(plugin)) == ([1], None, 0)


async def test_an_identity_that_has_expired_is_told_nothing() -> None:
    """It ends before it begins, and the source is not asked."""
    source = Rows(context_of(ADA))
    async with plugin_of(source, policy=STEADY) as plugin:
        assert [each async for each in plugin.watch(Identity(ADA, expires_at=1.0))] == []
    assert source.asked == []


async def test_while_the_source_is_down_it_goes_on_and_then_fails_closed() -> None:
    """What was told stays in force up to `stale_for`; then the watch raises, and may be asked again."""
    policy = replace(STEADY, ttl=0.1, stale_for=60.0, untrusted_ttl=0.1)
    source, clock = Rows(context_of(ADA)), FakeClock()
    async with plugin_of(source, policy=policy, clock=clock) as plugin, anyio.create_task_group() as tasks:
        told = Told(plugin)
        tasks.start_soon(told.run)
        await told.numbered(1)
        source.rows[ADA] = SourceUnavailable("down")

        def has_looked(times: int) -> bool:
            clock.advance(0.1)
            return len(source.asked) >= times

        await eventually_async(partial(has_looked, 3))
        assert (told.numbers, told.error) == ([1], None)
        clock.advance(policy.stale_for)
        await eventually_async(lambda: isinstance(told.error, SourceUnavailable))
        assert waiting(plugin) == 0
        source.put(ADA, 2)
        await eventually_async(lambda: _recovered(plugin))
        assert await next_of(told.changes) == context_of(ADA, number=2)


async def _recovered(plugin: ContextPlugin[UserContext]) -> bool:
    try:
        await plugin.resolve(ADA)
    except SourceUnavailable:
        return False
    return True


async def test_what_is_past_its_time_is_told_as_stale() -> None:
    """A watch that begins while the source is down is given what a request would be given, marked."""
    source, clock = Rows(context_of(ADA)), FakeClock()
    async with plugin_of(source, policy=STEADY, clock=clock) as plugin:
        await plugin.resolve(ADA)
        source.rows[ADA] = SourceUnavailable("down")
        clock.advance(STEADY.ttl + 1)
        with anyio.fail_after(PATIENCE):
            first = await anext(plugin.watch(ADA))
        assert (first.context, first.stale) == (context_of(ADA), True)


async def test_an_invalidation_while_the_source_is_down_fails_closed() -> None:
    """Nobody goes on with what was invalidated because nothing newer can be had."""
    source = Rows(context_of(ADA))
    async with plugin_of(source, policy=STEADY) as plugin, anyio.create_task_group() as tasks:
        told = Told(plugin)
        tasks.start_soon(told.run)
        await told.numbered(1)
        source.rows[ADA] = SourceUnavailable("down")
        await plugin.invalidate(ADA)
        await eventually_async(lambda: isinstance(told.error, SourceUnavailable))


async def test_only_those_of_the_user_are_woken_and_nothing_leaks() -> None:
    """Of many who watch, an invalidation wakes its user's; cancelled, none of them leaves a trace."""
    people = [f"user{number}@example.com" for number in range(300)]
    source = Rows(*(context_of(email) for email in people))
    async with plugin_of(source, policy=STEADY) as plugin, anyio.create_task_group() as tasks:
        told = {email: [Told(plugin, email), Told(plugin, email)] for email in people}
        everybody = [each for pair in told.values() for each in pair]
        for each in everybody:
            tasks.start_soon(each.run)
        await eventually_async(lambda: all(each.numbers == [1] for each in everybody))
        await eventually_async(lambda: waiting(plugin) == 600)
        assert len(source.asked) == 300
        hits = plugin.stats().resolutions
        source.put(people[7], 2)
        await plugin.invalidate(people[7])
        for each in told[people[7]]:
            await each.numbered(1, 2)
        assert len(source.asked) == 301
        after = plugin.stats().resolutions
        assert sum(after.values()) - sum(hits.values()) <= 6
        source.batches.clear()
        await plugin.clear()
        await eventually_async(lambda: len(source.asked) - len(source.calls) >= 300)
        assert len(source.batches) <= 8
        tasks.cancel_scope.cancel()
    assert waiting(plugin) == 0
    assert plugin._assembly.cache.watchers._bells == {}


async def test_one_that_is_dropped_leaves_nothing_behind() -> None:
    """Whoever breaks off the loop has nothing to close."""
    async with plugin_of(Rows(context_of(ADA)), policy=STEADY) as plugin:
        changes = plugin.watch(ADA)
        async for _ in changes:
            break
        del changes
        gc.collect()
        assert waiting(plugin) == 0


async def test_an_invalidation_in_another_thread_s_event_loop_is_told(anyio_backend: Any) -> None:
    """The plugin is one for the process: who watches in one loop is woken out of another."""
    source = Rows(context_of(ADA))
    name, options = anyio_backend
    async with plugin_of(source, policy=STEADY) as plugin, anyio.create_task_group() as tasks:
        told = Told(plugin)
        tasks.start_soon(told.run)
        await told.numbered(1)
        await eventually_async(lambda: waiting(plugin) == 1)
        source.put(ADA, 2)
        other = threading.Thread(
            target=lambda: anyio.run(plugin.invalidate, ADA, backend=name, backend_options=options)
        )
        other.start()
        await told.numbered(1, 2)
        await eventually_async(lambda: not other.is_alive())
        tasks.cancel_scope.cancel()


def test_an_event_loop_that_has_ended_is_not_rung() -> None:
    """A loop that dies with a watch inside it harms no invalidation by another."""
    source = Rows(context_of(ADA))
    plugin = plugin_of(source, policy=STEADY)

    async def watch() -> None:
        changes = plugin.watch(ADA)
        await next_of(changes)
        with anyio.move_on_after(0.05):
            await next_of(changes)

    async def invalidate() -> None:
        assert (await plugin.invalidate(ADA)).memory == 1

    anyio.run(watch)
    anyio.run(invalidate)
    eventually(lambda: waiting(plugin) == 0)


async def test_a_source_s_zero_time_is_not_asked_in_a_circle() -> None:
    """A source whose answers hold for no time at all is asked about once a second for one who watches."""

    class Never(Rows):
        async def fetch(self, identity: Identity) -> Any:
            loaded = await super().fetch(identity)
            return Loaded(loaded.value, ttl=0.0)

        async def fetch_many(self, identities: Sequence[Identity]) -> Any:
            return {identity: await self.fetch(identity) for identity in identities}

    source = Never(context_of(ADA))
    async with plugin_of(source, policy=STEADY) as plugin:
        changes = plugin.watch(ADA)
        began = anyio.current_time()
        await next_of(changes)
        with anyio.move_on_after(0.5):
            await anext(changes)
        # However much longer than that it took on a busy machine.
        assert len(source.asked) <= 2 + (anyio.current_time() - began)


async def test_zones_are_part_of_what_is_compared() -> None:
    """Other zones are a change, told when they have arrived, and zones that are the same are none."""

    class Zones:
        def __init__(self) -> None:
            self.name = "Harbour"

        async def fetch(self) -> list[Zone]:
            return [Zone("z1", self.name, "NORTH")]

    zones, person = Zones(), UserContext(ADA, context_of(ADA).employee, (), (), (Region(1, "NORTH", "North"),))
    async with plugin_of(Rows(person), policy=STEADY, zones=zones) as plugin:
        await plugin.zones_loaded()
        changes = plugin.watch(ADA)
        told = [await next_of(changes)]

        async def wait() -> None:
            told.append(await next_of(changes))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await eventually_async(lambda: waiting(plugin) == 1)
            assert plugin._assembly.zones is not None
            await plugin._assembly.zones.refresh()
            zones.name = "Old Town"
            await plugin._assembly.zones.refresh()
    assert [each and [zone.name for zone in each.zones] for each in told] == [["Harbour"], ["Old Town"]]


async def test_only_so_many_resolve_at_a_time() -> None:
    """Woken all at once they leave room for requests in the queue at the source: none is refused."""
    people = [f"user{number}@example.com" for number in range(40)]
    source = Rows(*(context_of(email) for email in people))
    policy = replace(STEADY, max_waiting=10, max_batches=1)
    async with plugin_of(source, policy=policy) as plugin, anyio.create_task_group() as tasks:
        told = [Told(plugin, email) for email in people]
        for each in told:
            tasks.start_soon(each.run)
        await eventually_async(lambda: waiting(plugin) == 40 and all(each.numbers == [1] for each in told))
        await plugin.clear()
        await eventually_async(lambda: len(source.asked) == 80)
        assert [each.error for each in told] == [None] * 40
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("wrong", ["", "  "])
def test_an_empty_address_is_refused_at_once(wrong: str) -> None:
    """Whoever begins to watch nobody hears of it there, and not in the loop."""
    with pytest.raises(ValueError, match="empty"):
        plugin_of().watch(wrong)


async def test_tenants_are_kept_apart() -> None:
    """A watch resolves for its own tenant, and an invalidation of the address reaches it."""
    source = Rows(context_of(BOB))
    async with plugin_of(source, policy=STEADY) as plugin:
        changes = plugin.watch(Identity(BOB, tenant="one"))
        await next_of(changes)
        assert plugin.peek(Identity(BOB)) is None
        source.put(BOB, 2)
        await plugin.invalidate(BOB)
        assert await next_of(changes) == context_of(BOB, number=2)


def test_a_clock_on_the_wall_decides_on_expiry() -> None:
    """What is left of an identity is counted in the seconds it was issued in."""
    plugin = plugin_of()
    watching = Watching(plugin._resolver, plugin._assembly.cache, plugin._loop.ensure, wall_clock=lambda: 100.0)
    assert watching.watch(Identity(ADA, expires_at=103.5))._left() == 3.5


async def test_a_watch_compares_with_the_context_that_it_gave() -> None:
    """Another thread may replace the entry as soon as it was looked up: the next change is that one."""
    async with ContextPlugin(source=Rows(context_of(ADA, number=1))) as plugin:
        cache, watch = plugin._assembly.cache, plugin.watch(ADA)
        peek, replaced = cache.peek, list[bool]()

        def racing(key: tuple[str, str]) -> Any:
            entry = peek(key)
            if entry is not None and not replaced:
                replaced.append(True)
                newer = cache.policy.entry(context_of(ADA, number=2), "db", entry.loaded_at, 900.0, shared=False)
                cache.memory.put(key, newer, entry.loaded_at)
            return entry

        await plugin.resolve(ADA)
        cache.peek = racing  # type: ignore[method-assign]  # as another thread would come in between
        assert (await anext(watch)).context == context_of(ADA, number=1)
        with anyio.fail_after(PATIENCE):
            assert (await anext(watch)).context == context_of(ADA, number=2)
