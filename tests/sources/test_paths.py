"""The function and the tables give the same context, for every address and any number of rows."""

from __future__ import annotations

import logging

import msgspec
import pytest

from ctxmiddleware import Identity
from ctxmiddleware.address import normalise
from ctxmiddleware.errors import SourceError
from ctxmiddleware.model import UserContext
from ctxmiddleware.sources.base import Loaded
from ctxmiddleware.sources.postgrest import FUNCTION
from ctxmiddleware.sources.supabase import SupabaseSource
from examples.servers import PostgREST, SupabaseFront, SupabaseProject

from .conftest import (
    ADA,
    BUSY,
    GONE,
    IDLE,
    MANY,
    ODD,
    Build,
    Clock,
    drop_functions,
    install_functions,
    one_dialect,
    people,
    trio_in_full,
)

pytestmark = [pytest.mark.anyio, trio_in_full]

SPELLINGS = [*people(), " ADA@Example.com\t", "As.Stored@Example.COM", "O'HARA+NEWS@EXAMPLE.COM"]
UNKNOWN = [
    "nobody@example.com",
    "\xa0",
    "%",
    "*",
    "ad_@example.com",
    "\u0131stanbul@example.com",
    "ada@example.com\u00a0",
]
TABLES = ("employees", "assignments", "slots", "regions")


async def fetched(source: SupabaseSource, emails: list[str]) -> list[Loaded[UserContext]]:
    """Load several users one after the other."""
    async with source:
        return [await source.fetch(Identity(email)) for email in emails]


async def test_function_and_tables_give_the_same_bytes(
    build: Build, front: SupabaseFront, project: SupabaseProject
) -> None:
    """For odd addresses and for as many rows as fill pages and URLs, both ways encode to the same bytes."""
    by_function = await fetched(build(), SPELLINGS)
    drop_functions(project)
    try:
        by_tables = await fetched(build(), SPELLINGS)
    finally:
        install_functions(project)
    assert [loaded.origin for loaded in by_function] == ["rpc"] * len(SPELLINGS)
    assert [loaded.origin for loaded in by_tables] == ["legacy"] * len(SPELLINGS)
    for email, one, other in zip(SPELLINGS, by_function, by_tables, strict=True):
        assert one.value is not None
        assert other.value is not None
        assert one.value.email == normalise(email)
        assert msgspec.msgpack.encode(one.value) == msgspec.msgpack.encode(other.value)


async def test_a_miss_is_one_call(build: Build, front: SupabaseFront) -> None:
    """The function answers a user in one request, also one with thousands of assignments."""
    [loaded] = await fetched(build(), [BUSY])
    assert loaded.value is not None
    assert len(loaded.value.assignments) == MANY
    assert front.counts().kinds == {f"rpc:{FUNCTION}": 1}


async def test_inactive_and_idle_people_have_contexts(build: Build) -> None:
    """Whether somebody may do something is not decided here, and nothing to do is a context too."""
    gone, idle = await fetched(build(), [GONE, IDLE])
    assert gone.value is not None
    assert not gone.value.employee.is_active
    assert idle.value is not None
    assert not [*idle.value.assignments, *idle.value.slots, *idle.value.regions]


async def test_unknown_users_are_none_by_both_ways(build: Build, project: SupabaseProject) -> None:
    """Nobody is found under wildcards, near spellings or a blank, and that is no error."""
    assert await fetched(build(), UNKNOWN) == [Loaded(None, origin="rpc")] * len(UNKNOWN)
    drop_functions(project)
    try:
        nobody = Loaded[UserContext](None, origin="legacy")
        assert await fetched(build(), UNKNOWN) == [nobody] * len(UNKNOWN)
    finally:
        install_functions(project)


@pytest.mark.usefixtures("without_function")
@pytest.mark.parametrize("asked", ["as.stored@example.com", "As.Stored@Example.COM", " AS.STORED@EXAMPLE.COM\t"])
async def test_the_tables_find_an_address_in_whatever_spelling_it_is_stored(build: Build, asked: str) -> None:
    """Who is stored with capitals is found as the function finds them: by the rule, and not by the spelling."""
    [loaded] = await fetched(build(), [asked])
    assert loaded.value is not None
    assert loaded.value.email == "as.stored@example.com"


async def test_addresses_no_database_can_hold_are_not_asked_for(build: Build, front: SupabaseFront) -> None:
    """An address with a NUL, or of kilobytes, is an unknown user's, without a request."""
    found = await fetched(build(), ["a\x00@example.com", "x" * 100_000])
    assert [loaded.value for loaded in found] == [None, None]
    assert front.counts().requests == 0


@pytest.mark.usefixtures("without_function")
async def test_the_tables_are_four_requests(build: Build, front: SupabaseFront) -> None:
    """Without the function a load asks each table once, after the one call that found it missing."""
    await fetched(build(), [ADA])
    assert front.counts().kinds == {f"rpc:{FUNCTION}": 1, **{f"table:{table}": 1 for table in TABLES}}


@pytest.mark.usefixtures("without_function")
async def test_many_rows_come_in_pages(build: Build, front: SupabaseFront) -> None:
    """More assignments than the server returns at once are read page by page, more slots than fit a URL in pieces."""
    [loaded] = await fetched(build(), [BUSY])
    assert loaded.value is not None
    assert len(loaded.value.assignments) == MANY
    counts = front.counts()
    assert counts.table("assignments") == 3
    assert counts.table("slots") > 1


async def test_an_address_of_two_people_is_nobodys(build: Build, project: SupabaseProject) -> None:
    """Two rows for one address are an error by both ways, and neither gets the other's context."""
    project.execute(f"insert into hr.employees values (900, '{ADA.upper()}', 'Other', null, 'rep', true)")
    try:
        source = build()
        async with source:
            with pytest.raises(SourceError, match="more than one employee"):
                await source.fetch(Identity(ADA))
        drop_functions(project)
        async with build() as source:
            for spelling in (ADA, ADA.upper(), ADA.title(), f" {ADA}"):
                with pytest.raises(SourceError, match="more than one employee"):
                    await source.fetch(Identity(spelling))
    finally:
        project.execute("delete from hr.employees where id = 900")
        install_functions(project)


async def test_a_missing_function_is_remembered_a_minute(
    build: Build, front: SupabaseFront, project: SupabaseProject, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The tables are read for sixty seconds without asking for the function, then tried again; this is logged."""
    caplog.set_level(logging.INFO, "ctxmiddleware")
    async with build() as source:
        drop_functions(project)
        try:
            for _ in range(3):
                assert (await source.fetch(Identity(ADA))).origin == "legacy"
            assert front.counts().rpc(FUNCTION) == 1
            clock.now += 60.0
            assert (await source.fetch(Identity(ADA))).origin == "legacy"
            assert front.counts().rpc(FUNCTION) == 2
        finally:
            install_functions(project)
        clock.now += 59.9
        assert (await source.fetch(Identity(ADA))).origin == "legacy"
        clock.now += 0.1
        assert (await source.fetch(Identity(ADA))).origin == "rpc"
        assert (await source.fetch(Identity(ADA))).origin == "rpc"
    told = [(record.levelname, record.args) for record in caplog.records if record.name == "ctxmiddleware.sources"]
    assert told == [("WARNING", (FUNCTION,)), ("WARNING", (FUNCTION,))]


@pytest.mark.parametrize("kind", ["secret_key", "service_key"])
async def test_both_kinds_of_key_open_the_door(build: Build, front: SupabaseFront, kind: str) -> None:
    """A secret key and the legacy service_role key both get an answer from the gateway."""
    [loaded] = await fetched(build(key=getattr(front, kind)), [ADA])
    assert loaded.value is not None


async def test_a_stale_schema_cache_is_a_missing_function(
    build: Build, front: SupabaseFront, project: SupabaseProject
) -> None:
    """Between drop and reload the database itself says that our function is missing, and the tables are read."""
    project.execute(f"drop function hr.{FUNCTION}(text)")
    try:
        [loaded] = await fetched(build(), [ADA])
        assert front.counts().rpc(FUNCTION) == 1
    finally:
        install_functions(project)
    assert loaded.origin == "legacy"
    assert loaded.value is not None


@one_dialect
async def test_lower_limits_of_the_server_hide_no_row(project: SupabaseProject, build: Build) -> None:
    """A server that returns two hundred rows at most still gives the whole context by the tables."""
    dsn = project.postgres.dsn(project.database, user="authenticator")
    [whole] = await fetched(build(), [ODD[0]])
    drop_functions(project)
    try:
        with (
            PostgREST.start(dsn, jwt_secret=project.keys.jwt_secret, schemas=("hr",), max_rows=200) as postgrest,
            SupabaseFront.start(postgrest.url, keys=project.keys) as small,
        ):
            found, busy = await fetched(build(url=small.url), [ODD[0], BUSY])
    finally:
        install_functions(project)
    assert found.value == whole.value
    assert busy.value is not None
    assert len(busy.value.assignments) == MANY
