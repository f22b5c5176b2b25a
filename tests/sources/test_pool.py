"""How many connections the server sees, how old they become, and that no fault costs one for good."""

from __future__ import annotations

import logging
import random
import threading
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from ctxmiddleware import Identity
from ctxmiddleware.errors import NotOpen, SourceUnavailable
from ctxmiddleware.sources.supabase import SupabaseSource
from examples.servers import SupabaseFront, SupabaseProject

from ..waiting import eventually_async
from .conftest import ADA, BUSY, LONG, Build, Clock, answered, one_dialect, patient, trio_in_full

pytestmark = [pytest.mark.anyio, one_dialect]


async def fetch_together(source: SupabaseSource, count: int) -> int:
    """Load one user many times at once and return how many loads succeeded."""
    good = 0

    async def one() -> None:
        nonlocal good
        if (await source.fetch(Identity(ADA))).value is not None:
            good += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(one)
    return good


async def all_are_used(source: SupabaseSource, front: SupabaseFront, count: int) -> None:
    """Let more loads than there are connections hang until each connection carries one; then cancel them."""
    front.reset()
    front.disturb("hang", times=None)
    async with anyio.create_task_group() as tasks:
        for _ in range(2 * count):
            tasks.start_soon(source.fetch, Identity(ADA))
        await eventually_async(lambda: front.counts().most_under_way == count)
        tasks.cancel_scope.cancel()
    front.reset()


async def test_no_more_connections_than_allowed(build: Build, front: SupabaseFront) -> None:
    """Sixty loads at once use three connections, all of them."""
    front.delay(10)
    async with build(pool=patient(max_connections=3)) as source:
        assert await fetch_together(source, 60) == 60
    counts = front.counts()
    assert counts.most_connections == 3
    assert counts.connections_opened == 3
    assert counts.most_under_way == 3


async def test_no_connection_is_older_than_allowed(build: Build, front: SupabaseFront, clock: Clock) -> None:
    """Under steady load connections are replaced before their age, never with one too many beside the old."""
    front.delay(5)
    async with build(pool=patient(max_connections=3, recycle=100.0, keepalive=1000.0)) as source:
        opened = [0]
        for _ in range(5):
            assert await fetch_together(source, 6) == 6
            opened.append(front.counts().connections_opened)
            assert opened[-2] < opened[-1] <= opened[-2] + 3
            # A fifth of their life before its end they are lent no more.
            clock.now += 79.9
            assert await fetch_together(source, 1) == 1
            assert front.counts().connections_opened == opened[-1]
            clock.now += 0.2
    assert front.counts().most_connections <= 3


async def test_idle_connections_are_closed_at_their_age(build: Build, front: SupabaseFront, clock: Clock) -> None:
    """No load is needed for a connection to be retired: the server sees it go."""
    async with build(pool=patient(recycle=5.0)) as source:
        await source.fetch(Identity(ADA))
        clock.now += 3.9
        assert front.counts().connections == 1
        clock.now += 0.2
        await eventually_async(lambda: front.counts().connections == 0)


async def test_silent_connections_are_closed(build: Build, front: SupabaseFront, clock: Clock) -> None:
    """An idle connection is given up after `keepalive`, long before its age."""
    async with build(pool=patient(keepalive=0.2)) as source:
        assert await fetch_together(source, 5) == 5
        opened = front.counts().connections
        clock.now += 0.1
        assert (await source.fetch(Identity(ADA))).value is not None
        assert (front.counts().connections, front.counts().connections_opened) == (opened, opened)
        clock.now += 0.2
        await eventually_async(lambda: front.counts().connections == 0)
        assert (await source.fetch(Identity(ADA))).value is not None


async def test_a_busy_connection_is_closed_at_its_age(build: Build, front: SupabaseFront, clock: Clock) -> None:
    """A request under which the connection comes of age is asked again on a new one, and not seen to fail."""
    async with build(pool=patient(recycle=10.0)) as source:
        await source.fetch(Identity(ADA))
        # It is lent for the last time, with a second to live.
        clock.now += 7.99
        front.disturb("hang", times=1)
        with anyio.fail_after(LONG / 2):
            assert (await source.fetch(Identity(ADA))).value is not None
    assert front.counts().connections_opened == 2
    assert front.counts().requests == 3


async def test_requests_longer_than_a_life_are_told(build: Build, front: SupabaseFront) -> None:
    """Where no connection lives long enough for the answer, the error names the setting."""
    front.disturb("hang", times=None)
    async with build(pool=patient(recycle=0.2)) as source:
        with pytest.raises(SourceUnavailable, match="DB_POOL_RECYCLE"):
            await source.fetch(Identity(ADA))


async def test_waiting_for_a_place_ends(build: Build, front: SupabaseFront, clock: Clock) -> None:
    """A load that gets no connection in time is told which settings decide, and sends nothing."""
    front.disturb("hang", times=1)
    async with build(pool=patient(max_connections=1, pool_timeout=0.2)) as source:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.fetch, Identity(ADA))
            await eventually_async(lambda: front.counts().requests == 1)
            with pytest.raises(SourceUnavailable, match=r"DB_POOL_TIMEOUT \(0\.2 s\).*DB_MAX_CONNECTIONS \(1\)"):
                await source.fetch(Identity(ADA))
            tasks.cancel_scope.cancel()
        assert front.counts().requests == 1
        await eventually_async(partial(answered, source, clock))


async def test_whoever_waits_while_the_source_is_closed_opens_nothing(build: Build, front: SupabaseFront) -> None:
    """The connection for which a load waited is closed with the source, and no new one takes its place."""
    front.disturb("hang", times=1)
    told: list[bool] = []

    async def ask(source: SupabaseSource) -> None:
        with pytest.raises((SourceUnavailable, NotOpen)):
            await source.fetch(Identity(ADA))
        told.append(True)

    async with (
        anyio.create_task_group() as tasks,
        build(pool=patient(max_connections=1)) as source,
    ):
        tasks.start_soon(ask, source)
        await eventually_async(lambda: front.counts().requests == 1)
        tasks.start_soon(ask, source)
        await anyio.wait_all_tasks_blocked()
    assert told == [True, True]
    assert front.counts().connections_opened == 1
    await eventually_async(lambda: front.counts().connections == 0)


async def test_cancelled_callers_cost_no_connection(build: Build, front: SupabaseFront) -> None:
    """After two hundred loads cancelled at every moment all connections can still be used, and no more."""
    rng = random.Random(3)
    front.delay(4)
    async with build(pool=patient(max_connections=4)) as source:
        for _ in range(10):
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(_cancelled_after, source, rng.uniform(0, 0.02))
        assert await fetch_together(source, 8) == 8
        assert front.counts().most_connections <= 4
        await all_are_used(source, front, 4)
    await eventually_async(lambda: front.counts().connections == 0)


async def _cancelled_after(source: SupabaseSource, seconds: float) -> None:
    with anyio.move_on_after(seconds):
        await source.fetch(Identity(ADA))


async def test_faults_cost_no_connection(build: Build, front: SupabaseFront, clock: Clock) -> None:
    """After cut, dropped and hanging replies as many as there are connections, all can still be used."""

    async def fail(source: SupabaseSource) -> None:
        with suppress(SourceUnavailable):
            await source.fetch(Identity(ADA))

    async def all_at_once(source: SupabaseSource) -> bool:
        clock.now += 60
        front.reset()
        front.delay(50)
        async with anyio.create_task_group() as tasks:
            for _ in range(9):
                tasks.start_soon(fail, source)
        return front.counts().most_under_way == 3

    async with build(pool=patient(max_connections=3, read_timeout=0.3)) as source:
        for action in ("cut", "drop", "hang"):
            front.disturb(action, times=6, after=10)
            async with anyio.create_task_group() as tasks:
                for _ in range(6):
                    tasks.start_soon(fail, source)
            front.reset()
            await eventually_async(partial(answered, source, clock))
        await eventually_async(partial(all_at_once, source))


async def test_two_servers_share_the_places(build: Build, front: SupabaseFront, replica: SupabaseFront) -> None:
    """Primary and replica together have no more connections than allowed; idle ones give way."""
    async with build(read_url=replica.url, pool=patient(max_connections=2)) as source:
        for _ in range(3):
            assert await fetch_together(source, 4) == 4
            source.invalidated(Identity(ADA))
            assert await fetch_together(source, 4) == 4
            await eventually_async(lambda: front.counts().connections + replica.counts().connections <= 2)
            await source.fetch(Identity(BUSY))
    assert front.counts().most_connections <= 2
    assert replica.counts().most_connections <= 2


async def test_leaving_closes_every_connection(build: Build, front: SupabaseFront) -> None:
    """At the end of `async with` the server sees all connections go, and entering again opens new ones."""
    source = build()
    for _ in range(2):
        async with source:
            assert await fetch_together(source, 5) == 5
        await eventually_async(lambda: front.counts().connections == 0)


async def test_a_load_under_way_ends_with_the_source(build: Build, front: SupabaseFront) -> None:
    """Leaving does not wait for a hanging server: the load fails as unavailable."""
    front.disturb("hang", times=None)
    source = build()
    failures: list[Exception] = []

    async def load() -> None:
        try:
            await source.fetch(Identity(ADA))
        except (SourceUnavailable, NotOpen) as error:
            failures.append(error)

    with anyio.CancelScope() as leaving:
        async with anyio.create_task_group() as tasks, source:
            tasks.start_soon(load)
            await eventually_async(lambda: front.counts().requests == 1)
            leaving.deadline = anyio.current_time() + LONG / 2
    assert not leaving.cancelled_caught
    assert len(failures) == 1


async def test_a_restarted_server_is_not_noticed(build: Build, project: SupabaseProject) -> None:
    """Idle connections that died with the server are replaced without a failed load."""
    with project.front() as front:
        await _outlives_a_restart(build(url=front.url), front)


async def _outlives_a_restart(source: SupabaseSource, front: SupabaseFront) -> None:
    async with source:
        assert await fetch_together(source, 5) == 5
        front.kill()
        front.restart()
        assert await fetch_together(source, 5) == 5


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_a_ready_client_is_used_and_left_open(build: Build, front: SupabaseFront, library: Any) -> None:
    """A client that is given sends the requests, of both libraries, and stays open for its owner."""
    async with library.AsyncClient(headers={"x-mine": "1"}) as client:
        async with build(client=client, pool=patient(max_connections=2)) as source:
            front.delay(20)
            assert await fetch_together(source, 10) == 10
            assert front.counts().most_under_way == 2
            front.disturb("drop", times=None)
            with pytest.raises(SourceUnavailable):
                await source.fetch(Identity(ADA))
            front.reset()
        async with build(client=client, pool=patient(read_timeout=0.2)) as source:
            front.disturb("hang", times=None)
            with pytest.raises(SourceUnavailable, match="no answer within"):
                await source.fetch(Identity(ADA))
            front.reset()
        assert not client.is_closed


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
async def test_cancelled_callers_cost_a_ready_client_nothing(build: Build, front: SupabaseFront, library: Any) -> None:
    """Httpx 0.28 loses a connection to a cancelled request; through the source it does not."""
    rng = random.Random(5)
    limits = library.Limits(max_connections=2)
    async with (
        library.AsyncClient(limits=limits) as client,
        build(client=client, pool=patient(max_connections=2)) as source,
    ):
        front.delay(3)
        for _ in range(10):
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(_cancelled_after, source, rng.uniform(0, 0.02))
        assert await fetch_together(source, 6) == 6


@trio_in_full
async def test_no_address_is_logged(
    build: Build, front: SupabaseFront, replica: SupabaseFront, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the client's own log lines nor ours, at any level, nor any error show whom a load was for."""
    caplog.set_level(logging.DEBUG)
    email = "As.Stored@Example.COM"
    said: list[str] = []
    async with httpx2.AsyncClient() as ready:
        for client in (None, ready):
            for fault in (None, "drop", "cut", "hang", "page"):
                async with build(read_url=replica.url, client=client, pool=patient(read_timeout=0.1)) as source:
                    for server in (front, replica):
                        server.reset()
                        if fault == "page":
                            server.fault(status=404, body={"code": "PGRST202", "message": email}, times=1)
                        elif fault is not None:
                            server.disturb(fault, times=None, after=10)  # type: ignore[arg-type]  # one of the words
                    try:
                        await source.fetch(Identity(email))
                    except Exception as error:  # noqa: BLE001 - whatever it is, it must not tell
                        said += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
    said += [f"{record.getMessage()} {vars(record)}" for record in caplog.records]
    assert said
    for spelling in (email, email.lower(), "as.stored", "As.Stored", front.secret_key):
        assert not [text for text in said if spelling in text]


async def test_other_requests_of_the_process_are_still_logged(
    front: SupabaseFront, build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the log lines of our own requests are kept silent."""
    caplog.set_level(logging.INFO, "httpx2")
    async with build() as source, httpx2.AsyncClient() as client:
        await source.fetch(Identity(ADA))
        assert [record for record in caplog.records if record.name == "httpx2"] == []
        await client.get(front.url)
    assert [record for record in caplog.records if record.name == "httpx2"] != []


def test_two_loops_in_two_threads_have_a_pool_each(build: Build, front: SupabaseFront) -> None:
    """One source serves loops in several threads at once, each with its own connections, closed with the loop."""
    source = build(pool=patient(max_connections=2))
    good: list[int] = []

    async def lazily() -> None:
        good.append(await fetch_together(source, 10))

    threads = [
        threading.Thread(target=anyio.run, args=(lazily,), kwargs={"backend": name}) for name in ("asyncio", "trio")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert good == [10, 10]
    assert front.counts().most_connections <= 4


async def test_requests_say_who_they_are(build: Build, front: SupabaseFront) -> None:
    """The User-Agent is ours and no browser's, and answers may come compressed."""
    seen: list[Any] = []

    async def keep(request: Any) -> None:
        seen.append(request)

    async with httpx2.AsyncClient(event_hooks={"request": [keep]}) as client, build(client=client) as source:
        await source.fetch(Identity(ADA))
    assert seen[0].headers["user-agent"].startswith("ctxmiddleware")
    assert seen[0].headers["content-profile"] == "hr"


@pytest.mark.usefixtures("without_function")
async def test_no_url_is_longer_than_gateways_take(build: Build, front: SupabaseFront) -> None:
    """The longest list of ids and the longest address fit 4 KB."""
    lengths: list[int] = []

    async def measure(request: Any) -> None:
        lengths.append(len(str(request.url)))

    async with httpx2.AsyncClient(event_hooks={"request": [measure]}) as client, build(client=client) as source:
        await source.fetch(Identity(BUSY))
        for longest in ("\u00c9" * 223 + "@X.c", '"' * 446 + "@X.c", "X" * 450, "\\" * 450):
            await source.fetch(Identity(longest))
    assert 3000 < max(lengths) < 4096
