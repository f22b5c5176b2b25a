"""What is really wrong on the other side becomes the right error, with the right number of requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import anyio
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ctxmiddleware import Identity
from ctxmiddleware.errors import SourceError, SourceMisconfigured, SourceUnavailable
from ctxmiddleware.sources.exchange import OutOfTime
from ctxmiddleware.sources.postgrest import FUNCTION
from examples.servers import Keys, Postgres, PostgREST, SupabaseFront, SupabaseProject, TcpProxy
from examples.servers.supabase.app import Dialect
from examples.servers.supabase.keys import signed

from ..backends import ASYNCIO
from ..waiting import eventually_async
from .conftest import ADA, Build, Clock, Pauses, answered, install_functions, newer_dialect, seed

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", [ASYNCIO])]

_STOP_SLEEPING = (
    "select pg_cancel_backend(pid) from pg_stat_activity "
    f"where query ~ '{FUNCTION}' and state = 'active' and pid <> pg_backend_pid()"
)

_KILL_IDLE = (
    "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
    "where application_name = 'between' and datname = current_database() and query !~* 'listen'"
)


@contextmanager
def replaced(project: SupabaseProject, body: str, head: str = "language sql stable security definer") -> Iterator[None]:
    """Let the function have another body for a while."""
    project.execute(
        f"set check_function_bodies = off; create or replace function hr.{FUNCTION}(p_email text) returns jsonb {head} "
        f"as $body$ {body} $body$;",
        reload=True,
    )
    try:
        yield
    finally:
        project.execute(f"comment on function hr.{FUNCTION}(text) is 'ctxmiddleware 0001: restored by a test'")
        install_functions(project)


async def refused(build: Build, kind: type[SourceError], **options: object) -> SourceError:
    """Load one user and return the error, which is exactly of this kind and says nothing of the user."""
    async with build(**options) as source:
        with pytest.raises(kind) as caught:
            await source.fetch(Identity(ADA))
    assert type(caught.value) is kind
    assert ADA not in str(caught.value)
    assert caught.value.__context__ is None
    return caught.value


@newer_dialect
@pytest.mark.parametrize(
    ("body", "kind", "requests"),
    [
        pytest.param("select to_jsonb(hr.badge_of(1))", SourceMisconfigured, 1, id="missing function"),
        pytest.param("select to_jsonb(count(*)) from hr.badges", SourceMisconfigured, 1, id="missing table"),
        pytest.param("select to_jsonb(e.badge) from hr.employees e", SourceMisconfigured, 1, id="missing column"),
        pytest.param("select to_jsonb(1)", SourceError, 1, id="another shape"),
        pytest.param("select jsonb_build_object('email', p_email)", SourceError, 1, id="half a context"),
        pytest.param("select to_jsonb(1 / (length(p_email) * 0))", SourceError, 1, id="division by zero"),
    ],
)
async def test_a_broken_function_is_not_a_missing_one(
    build: Build, front: SupabaseFront, project: SupabaseProject, body: str, kind: type[SourceError], requests: int
) -> None:
    """What fails inside the function is told and neither retried nor hidden behind the table queries."""
    with replaced(project, body):
        await refused(build, kind)
    assert front.counts().kinds == {f"rpc:{FUNCTION}": requests}


@newer_dialect
async def test_another_persons_context_is_refused(build: Build, project: SupabaseProject) -> None:
    """A function that answers with somebody else's context yields an error, not the context."""
    body = "select hr.get_user_contexts_by_emails(array['idle@example.com']) -> 'idle@example.com'"
    with replaced(project, body):
        error = await refused(build, SourceError)
    assert str(error).startswith("employees.email: ")


async def test_a_function_over_statement_timeout_is_tried_twice(
    build: Build, front: SupabaseFront, project: SupabaseProject
) -> None:
    """57014 is a passing fault with one retry."""
    with replaced(project, "select to_jsonb(pg_sleep(5)::text)", "language sql stable set statement_timeout = '100ms'"):
        project.execute("alter role service_role set statement_timeout = '100ms'; notify pgrst, 'reload config'")
        project.postgrest.restart()
        try:
            error = await refused(build, OutOfTime)
        finally:
            project.execute("alter role service_role reset statement_timeout; notify pgrst, 'reload config'")
            project.postgrest.restart()
    assert "57014" in str(error)
    assert front.counts().rpc(FUNCTION) == 2


@pytest.mark.parametrize(
    ("revoke", "give_back"),
    [
        (
            f"revoke execute on function hr.{FUNCTION}(text) from service_role",
            f"grant execute on function hr.{FUNCTION}(text) to service_role",
        ),
        ("revoke usage on schema hr from service_role", "grant usage on schema hr to service_role"),
    ],
    ids=["function", "schema"],
)
async def test_a_missing_grant_is_a_misconfiguration(
    build: Build, front: SupabaseFront, project: SupabaseProject, revoke: str, give_back: str
) -> None:
    """42501 names what is to be done, is not retried and never turns into anybody's 401."""
    project.execute(revoke)
    try:
        error = await refused(build, SourceMisconfigured)
    finally:
        project.execute(give_back)
    assert "42501" in str(error)
    assert front.counts().requests == 1


@pytest.mark.usefixtures("without_function")
async def test_a_missing_grant_on_a_table_is_a_misconfiguration(build: Build, project: SupabaseProject) -> None:
    """A table that may not be read stops the load, it does not become an empty list."""
    project.execute("revoke select on hr.slots from service_role")
    try:
        error = await refused(build, SourceMisconfigured)
    finally:
        project.execute("grant select on hr.slots to service_role")
    assert "42501" in str(error)


@pytest.mark.usefixtures("without_function")
async def test_a_missing_table_is_a_misconfiguration(build: Build, project: SupabaseProject) -> None:
    """A table that is not there stops the load in both dialects, PGRST205 and 42P01."""
    project.execute("alter table hr.regions rename to areas", reload=True)
    try:
        await refused(build, SourceMisconfigured)
    finally:
        project.execute("alter table hr.areas rename to regions", reload=True)


@pytest.mark.usefixtures("without_function")
async def test_a_missing_column_is_a_misconfiguration(build: Build, project: SupabaseProject) -> None:
    """A column of another name is told."""
    project.execute("alter table hr.slots rename column code to kode", reload=True)
    try:
        await refused(build, SourceMisconfigured)
    finally:
        project.execute("alter table hr.slots rename column kode to code", reload=True)


@pytest.mark.usefixtures("without_function")
async def test_a_null_where_none_may_be_names_table_and_field(build: Build, project: SupabaseProject) -> None:
    """A real row that does not fit the model is told by table and field."""
    project.execute("alter table hr.regions alter column name drop not null; update hr.regions set name = null")
    try:
        error = await refused(build, SourceError)
    finally:
        project.execute(
            "update hr.regions set name = 'Region ' || id; alter table hr.regions alter column name set not null"
        )
    assert str(error) == "regions.name: expected str, got null"


@pytest.mark.parametrize("by_tables", [False, True], ids=["function", "tables"])
async def test_an_infinite_date_names_table_and_field(build: Build, project: SupabaseProject, by_tables: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """PostgreSQL's infinity is no date of Python's, and is told by both ways."""
    project.execute("update hr.assignments set ends_on = 'infinity'")
    if by_tables:
        project.execute(f"alter function hr.{FUNCTION}(text) rename to hidden", reload=True)
    try:
        error = await refused(build, SourceError)
    finally:
        project.execute("update hr.assignments set ends_on = null")
        if by_tables:
            project.execute(f"alter function hr.hidden(text) rename to {FUNCTION}", reload=True)
    assert str(error) == "assignments.ends_on: expected date, got another text"


async def test_a_schema_that_is_not_exposed_is_a_misconfiguration(build: Build, front: SupabaseFront) -> None:
    """PGRST106 names the setting."""
    error = await refused(build, SourceMisconfigured, schema="personnel")
    assert "SUPABASE_SCHEMA" in str(error)
    assert front.counts().requests == 1


async def test_wrong_keys_are_misconfigurations(build: Build, project: SupabaseProject, front: SupabaseFront) -> None:
    """A key the gateway refuses names the variable."""
    error = await refused(build, SourceMisconfigured, key="sb_secret_of_another_project")
    assert "SUPABASE_KEY" in str(error)
    assert front.counts().requests == 1


@pytest.mark.parametrize(
    "claims",
    [{"role": "service_role", "exp": 1_000_000_000}, {"role": "service_role"}],
    ids=["expired", "of another secret"],
)
async def test_tokens_the_api_refuses_are_misconfigurations(
    build: Build, project: SupabaseProject, dialect: Dialect, claims: dict[str, str | int]
) -> None:
    """An expired key and one with a wrong signature name the variable, in both dialects."""
    secret = project.keys.jwt_secret if "exp" in claims else "x" * 40
    keys = Keys(**{**vars(project.keys), "service_role": signed(secret, **claims)})
    with SupabaseFront.start(project.postgrest.url, keys=keys, dialect=dialect) as lenient:
        error = await refused(build, SourceMisconfigured, url=lenient.url, key=keys.service_role)
    assert "SUPABASE_KEY was refused" in str(error)


@newer_dialect
async def test_an_exhausted_pool_backs_off(
    build: Build, project: SupabaseProject, dialect: Dialect, pauses: Pauses
) -> None:
    """PGRST003 is a passing fault that asks for a second of patience before its one retry."""
    dsn = project.postgres.dsn(project.database, user="authenticator")
    with (
        replaced(project, "select to_jsonb(pg_sleep(8)::text)"),
        PostgREST.start(
            dsn, jwt_secret=project.keys.jwt_secret, schemas=("hr",), pool=1, acquisition_timeout=1
        ) as small,
        SupabaseFront.start(small.url, keys=project.keys, dialect=dialect) as front,
    ):
        async with build(url=front.url) as first, anyio.create_task_group() as tasks:
            tasks.start_soon(first.fetch, Identity("idle@example.com"))
            await eventually_async(lambda: front.counts().rpc(FUNCTION) == 1)
            error = await refused(build, SourceUnavailable, url=front.url)
            assert front.counts().rpc(FUNCTION) == 3
            project.execute(_STOP_SLEEPING)
            tasks.cancel_scope.cancel()
        assert "PGRST003" in str(error)
        assert pauses.noted == [pytest.approx(1.1, abs=0.05)]


@newer_dialect
@pytest.mark.parametrize("way", ["terminated", "reset"])
async def test_a_database_connection_that_was_lost_is_a_passing_fault(
    build: Build, project: SupabaseProject, dialect: Dialect, clock: Clock, way: str
) -> None:
    """The API's own connection, ended while idle by an operator or by the network, is nobody's mistake here."""
    port = conninfo_to_dict(project.dsn)["port"]
    dsn = project.postgres.dsn(project.database, user="authenticator")
    with (
        TcpProxy.start("127.0.0.1", int(port or 0)) as between,
        PostgREST.start(
            make_conninfo(dsn, port=between.port, application_name="between"),
            jwt_secret=project.keys.jwt_secret,
            schemas=("hr",),
            pool=1,
        ) as small,
        SupabaseFront.start(small.url, keys=project.keys, dialect=dialect) as front,
    ):
        async with build(url=front.url) as source:
            for _ in range(2):
                await eventually_async(partial(answered, source, clock))
                if way == "reset":
                    between.drop()
                else:
                    project.execute(_KILL_IDLE)
                # Whatever it says until it is well again passes: anything else would be raised here.
                await answered(source, clock)
            await eventually_async(partial(answered, source, clock))


@newer_dialect
async def test_a_dead_database_is_a_passing_fault(build: Build, dialect: Dialect, clock: Clock) -> None:
    """While PostgreSQL is down a load is unavailable, and once it is back the same source answers."""
    with (
        Postgres.start() as own,
        SupabaseProject.start(own, database="mortal") as project,
        project.front(dialect) as front,
    ):
        with psycopg.connect(project.dsn, autocommit=True) as connection:
            seed(connection)
        async with build(url=front.url, key=front.secret_key) as source:
            assert (await source.fetch(Identity(ADA))).value is not None
            project.execute("checkpoint")  # this server may lose what it has not written yet
            own.kill()
            with pytest.raises(SourceUnavailable):
                await source.fetch(Identity(ADA))
            assert 2 <= front.counts().rpc(FUNCTION) <= 3
            own.restart()
            project.postgrest.restart()
            await eventually_async(partial(answered, source, clock))


async def test_a_dead_api_is_a_passing_fault(build: Build) -> None:
    """Nothing that listens at the address is an outage, tried twice, and no configuration error."""
    error = await refused(build, SourceUnavailable, url="http://127.0.0.1:9")
    assert "ECONNREFUSED" in str(error)


async def test_a_host_without_address_is_an_outage(build: Build) -> None:
    """A name that does not resolve is told in words and may resolve later."""
    error = await refused(build, SourceUnavailable, url="http://nowhere.invalid")
    assert "host name" in str(error)
