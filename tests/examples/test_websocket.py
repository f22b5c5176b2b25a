"""Whether the example websocket is told of its user's change and of a revocation, over real servers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from ctxmiddleware import CachePolicy, ContextPlugin, SupabaseSource, UserContext
from examples import websocket
from examples.demo.tokens import signed
from examples.servers import Postgres, SupabaseFront, SupabaseProject
from tests.backends import asyncio_only
from tests.cache.rig import PATIENT
from tests.waiting import PATIENCE, eventually_async

pytestmark = [pytest.mark.anyio, asyncio_only]

SECRET = "s" * 32
ROWS = """
truncate hr.regions, hr.slots, hr.employees, hr.assignments cascade;
insert into hr.regions values (1, 'NORTH', 'North'), (2, 'SOUTH', 'South');
insert into hr.slots values (1, 'N1', 'North one', 1), (2, 'S1', 'South one', 2);
insert into hr.employees values (1, 'Ada@Example.com', 'Ada', 'Lead', 'admin', true);
insert into hr.assignments values (1, 1, 1, true, '2024-01-01', null);
"""


@pytest.fixture(scope="module")
def project(postgres: Postgres) -> Iterator[SupabaseProject]:
    """A project of these tests' own."""
    with SupabaseProject.start(postgres, database="websocket") as running:
        yield running


@pytest.fixture(scope="module")
def running_front(project: SupabaseProject) -> Iterator[SupabaseFront]:
    """That project's front."""
    with project.front("16") as running:
        yield running


@pytest.fixture
def rows(project: SupabaseProject) -> SupabaseProject:
    """The project, with nobody but Ada in it."""
    project.execute(ROWS)
    return project


def plugin_of(front: SupabaseFront, redis_url: str) -> ContextPlugin[UserContext]:
    """Return one more instance of the fleet; memory is trusted so long that only the channel can be in time."""
    source = SupabaseSource(front.url, front.secret_key)
    return ContextPlugin(source=source, redis=redis_url, redis_options=PATIENT, policy=CachePolicy(untrusted_ttl=60))


@asynccontextmanager
async def served(plugin: ContextPlugin[UserContext]) -> AsyncIterator[str]:
    """Serve the example by uvicorn, and return its address."""
    config = uvicorn.Config(websocket.create_app(plugin, SECRET), port=0, log_level="warning", ws="websockets-sansio")
    server = uvicorn.Server(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        await eventually_async(lambda: server.started)
        yield f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        server.should_exit = True


@asynccontextmanager
async def connected(address: str, **token: float) -> AsyncIterator[ClientConnection]:
    """Enter the room of the North as Ada."""
    headers = {"Authorization": f"Bearer {signed('ada@example.com', SECRET, **token)}"}
    async with connect(f"{address}/rooms/NORTH", additional_headers=headers) as connection:
        yield connection


async def said(connection: ClientConnection) -> Any:
    """Return what the server says next, within a bounded time."""
    with anyio.fail_after(PATIENCE):
        return json.loads(await connection.recv())


async def closed(connection: ClientConnection) -> int | None:
    """Return the code with which the server closes the connection, which is all it says."""
    with anyio.fail_after(PATIENCE), pytest.raises(ConnectionClosed) as ended:
        await connection.recv()
    return None if ended.value.rcvd is None else ended.value.rcvd.code


async def test_a_change_and_a_revocation_by_another_instance(
    front: SupabaseFront, redis_url: str, rows: SupabaseProject
) -> None:
    """The connection is sent the new context at once, what it says carries it, and a revoked user's is closed."""
    here, elsewhere = plugin_of(front, redis_url), plugin_of(front, redis_url)
    async with elsewhere, served(here) as address, connected(address) as connection:
        ada = {"name": "Ada", "role": "admin", "title": "Lead", "regions": ["NORTH"]}
        assert await said(connection) == {"you": ada}
        rows.execute("update hr.employees set job_title = 'Head', full_name = 'Ada L' where id = 1")
        await elsewhere.invalidate("ada@example.com")
        assert await said(connection) == {"you": ada | {"title": "Head", "name": "Ada L"}}
        await connection.send("hello")
        assert await said(connection) == {"from": "Ada L", "room": "NORTH", "text": "hello"}
        rows.execute("update hr.employees set is_active = false where id = 1")
        await elsewhere.invalidate("ada@example.com")
        assert await closed(connection) == 1008


@pytest.mark.parametrize(
    "change",
    ["delete from hr.assignments; delete from hr.employees", "update hr.assignments set slot_id = 2"],
    ids=["unknown", "moved"],
)
async def test_who_may_not_be_there_any_more_is_closed(
    front: SupabaseFront, redis_url: str, rows: SupabaseProject, change: str
) -> None:
    """A user who was deleted, or whose region is another one, leaves the room."""
    here, elsewhere = plugin_of(front, redis_url), plugin_of(front, redis_url)
    async with elsewhere, served(here) as address, connected(address) as connection:
        await said(connection)
        rows.execute(change)
        await elsewhere.clear()
        assert await closed(connection) == 1008


async def test_the_connection_ends_with_the_token(front: SupabaseFront, redis_url: str, rows: SupabaseProject) -> None:
    """Nobody stays in on a token that has expired."""
    async with served(plugin_of(front, redis_url)) as address, connected(address, lasts=3) as connection:
        await said(connection)
        assert await closed(connection) == 1008


async def test_when_nobody_can_say_who_it_is_the_connection_is_closed(
    front: SupabaseFront, redis_url: str, rows: SupabaseProject
) -> None:
    """After an invalidation the source has to be asked; where it is down the connection fails closed."""
    here, elsewhere = plugin_of(front, redis_url), plugin_of(front, redis_url)
    async with elsewhere, served(here) as address, connected(address) as connection:
        await said(connection)
        front.fault(status=503, times=None)
        await elsewhere.invalidate("ada@example.com")
        assert await closed(connection) == 1013


async def test_a_client_that_goes_leaves_nothing_behind(
    front: SupabaseFront, redis_url: str, rows: SupabaseProject
) -> None:
    """Its watch ends with it."""
    here = plugin_of(front, redis_url)
    async with served(here) as address:
        async with connected(address) as connection:
            await said(connection)
            await eventually_async(lambda: len(here._assembly.cache.watchers) == 1)
        await eventually_async(lambda: len(here._assembly.cache.watchers) == 0)
