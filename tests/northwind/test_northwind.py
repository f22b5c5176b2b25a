"""Northwind's nine employees have the contexts that follow from Northwind's tables, by both ways and through an app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio
import httpx2
import msgspec
import pytest
from asgi_lifespan import LifespanManager
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from ctxmiddleware import ContextPlugin, Identity, UserContext, UserContextMiddleware, get_user_context
from ctxmiddleware.secret import Secret
from ctxmiddleware.sources.base import Loaded
from ctxmiddleware.sources.supabase import SupabaseSource
from examples.servers import SupabaseFront

from .conftest import Way
from .facts import ADDRESSES, NORTHWIND, expected

pytestmark = pytest.mark.anyio


def source_of(front: SupabaseFront) -> SupabaseSource:
    """Return a source that asks a front."""
    return SupabaseSource(front.url, Secret(front.secret_key))


async def everybody(front: SupabaseFront) -> dict[int, Loaded[UserContext]]:
    """Load all employees by the source alone."""
    async with source_of(front) as source:
        return {employee: await source.fetch(Identity(email)) for employee, email in ADDRESSES.items()}


def in_json(context: UserContext | None) -> object:
    """Return a context as JSON has it, which knows nothing of our types."""
    return msgspec.json.decode(msgspec.json.encode(context))


async def _me(request: Request) -> Response:
    return Response(msgspec.json.encode(get_user_context(request)), media_type="application/json")


def _by_header(scope: Scope) -> Identity | None:
    email = Headers(scope=scope).get("x-user")
    return None if email is None else Identity(email)


@asynccontextmanager
async def served(front: SupabaseFront) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve an app in our middleware and return a client of it."""
    plugin = ContextPlugin(source=source_of(front), identify=_by_header)
    app = Starlette(routes=[Route("/me", _me)])
    app.add_middleware(UserContextMiddleware, plugin=plugin)
    async with LifespanManager(app, startup_timeout=20, shutdown_timeout=20) as manager:
        transport = httpx2.ASGITransport(app=manager.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
            yield client


def test_the_facts_are_whole() -> None:
    """Nothing was lost on the way: the rows are as many as Northwind has, and each reference leads somewhere."""
    counts = [len(NORTHWIND.employees), len(NORTHWIND.regions), len(NORTHWIND.territories)]
    assert [*counts, len(NORTHWIND.employee_territories)] == [9, 4, 53, 49]
    assert {region for _, _, region in NORTHWIND.territories} == {region for region, _ in NORTHWIND.regions}
    assert {where for _, where in NORTHWIND.employee_territories} < {code for code, _, _ in NORTHWIND.territories}
    assert {who for who, _ in NORTHWIND.employee_territories} == set(ADDRESSES)


async def test_every_context_is_right(fronts: Mapping[Way, SupabaseFront], way: Way) -> None:
    """Each employee's context is the one that plain joins of Northwind's tables give."""
    loaded = await everybody(fronts[way])
    assert [each.origin for each in loaded.values()] == [way] * 9
    assert {who: in_json(each.value) for who, each in loaded.items()} == {who: expected(who) for who in ADDRESSES}


async def test_both_ways_give_the_same_bytes(fronts: Mapping[Way, SupabaseFront]) -> None:
    """What the function gives and what the tables give is encoded to the same bytes."""
    by_function, by_tables = await everybody(fronts["rpc"]), await everybody(fronts["legacy"])
    for encode in (msgspec.msgpack.encode, msgspec.json.encode):
        assert [encode(each.value) for each in by_function.values()] == [
            encode(each.value) for each in by_tables.values()
        ]


async def test_what_is_known_of_them(fronts: Mapping[Way, SupabaseFront], way: Way) -> None:
    """Robert King sells in ten places of the west, and Andrew Fuller, who leads others, in seven of the east."""
    async with source_of(fronts[way]) as source:
        king = (await source.fetch(Identity("robert.king@northwind.example"))).value
        fuller = (await source.fetch(Identity("andrew.fuller@northwind.example"))).value
    assert king is not None
    assert fuller is not None
    assert [slot.name for slot in king.slots] == [
        *("Hoffman Estates", "Chicago", "Denver", "Colorado Springs", "Santa Monica"),
        *("Menlo Park", "San Francisco", "Campbell", "Santa Clara", "Santa Cruz"),
    ]
    assert [region.name for region in king.regions] == ["Western"]
    assert [row.slot_id for row in king.assignments if row.is_primary] == [60179]
    assert (fuller.employee.role, fuller.employee.job_title) == ("manager", "Vice President, Sales")
    assert [slot.code for slot in fuller.slots] == ["01581", "01730", "01833", "02116", "02139", "02184", "40222"]
    assert {region.code for region in fuller.regions} == {"EASTERN"}


async def test_the_whole_stack_gives_everybody_their_own(fronts: Mapping[Way, SupabaseFront], way: Way) -> None:
    """Through an app all nine at once, in another spelling, get their own context, and then without the database."""
    answers: dict[tuple[int, int], object] = {}

    async def ask(client: httpx2.AsyncClient, who: int, turn: int) -> None:
        response = await client.get("/me", headers={"x-user": ADDRESSES[who].title()})
        answers[who, turn] = response.json()

    async with served(fronts[way]) as client:
        async with anyio.create_task_group() as tasks:
            for who in ADDRESSES:
                tasks.start_soon(ask, client, who, 1)
        if way == "rpc":
            assert fronts[way].counts().requests == 1  # they miss together, and travel together
        fronts[way].reset()
        for who in ADDRESSES:
            await ask(client, who, 2)
        assert fronts[way].counts().requests == 0
        stranger = await client.get("/me", headers={"x-user": "bill.stranger@northwind.example"})
        nobody = await client.get("/me")
    assert answers == {(who, turn): expected(who) for who in ADDRESSES for turn in (1, 2)}
    assert (stranger.status_code, nobody.status_code) == (403, 401)
