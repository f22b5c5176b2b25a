"""Who may call the functions, and with whose rights and names they run."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from examples.servers.postgres import Postgres

from .hr import DOWN, ROLES, TABLES, UP, Connection, acting_as, apply, ask, ask_many, employ, one, one_locale

CALLS = [
    "select hr.get_user_context_by_email('a@x')",
    "select hr.get_user_contexts_by_emails('{a@x}')",
]


@one_locale
def test_the_safe_form(installed: Connection) -> None:
    """Each function has one signature, is stable, runs as its owner and looks nothing up by search path."""
    rows = installed.execute(
        "select proname, pg_get_function_arguments(oid), pg_get_function_result(oid), provolatile, prosecdef,"
        " 'search_path=\"\"' = any (proconfig) from pg_proc where pronamespace = 'hr'::regnamespace order by proname"
    ).fetchall()
    assert rows == [
        ("get_user_context_by_email", "p_email text", "jsonb", "s", True, True),
        ("get_user_contexts_by_emails", "p_emails text[]", "jsonb", "s", True, True),
    ]


@one_locale
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("role", ["anon", "authenticated", "pg_monitor"])
def test_nobody_else_may_call(installed: Connection, role: str, call: str) -> None:
    """A role that can see the schema but has no grant on the function is refused with 42501."""
    installed.execute("grant usage on schema hr to public")
    with acting_as(installed, role), pytest.raises(psycopg.errors.InsufficientPrivilege):
        installed.execute(call.encode())


@one_locale
@pytest.mark.parametrize("call", CALLS)
def test_default_privileges_do_not_open_the_functions(tables: Connection, call: str) -> None:
    """A schema that hands every new function to anon and authenticated, as Supabase's public does, changes nothing."""
    tables.execute("grant usage on schema hr to anon, authenticated")
    tables.execute("alter default privileges in schema hr grant execute on functions to anon, authenticated")
    apply(tables, UP)
    for role in ("anon", "authenticated"):
        with acting_as(tables, role), pytest.raises(psycopg.errors.InsufficientPrivilege):
            tables.execute(call.encode())


@one_locale
def test_service_role_may_call_and_read_and_not_write(installed: Connection) -> None:
    """The server's role has the functions and, for the way without them, the four tables; it cannot change a row."""
    employ(installed, 1, "a@x")
    with acting_as(installed, "service_role"):
        assert ask(installed, "a@x") is not None
        assert ask_many(installed, ["a@x"])["a@x"] is not None
        for table in ("regions", "slots", "employees", "assignments"):
            installed.execute(f"select * from hr.{table}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            installed.execute("update hr.employees set role = 'admin'")


@one_locale
def test_the_functions_read_with_their_owner_s_rights(installed: Connection) -> None:
    """A caller that may not read the tables gets its answers all the same."""
    employ(installed, 1, "a@x")
    installed.execute("revoke select on all tables in schema hr from service_role")
    with acting_as(installed, "service_role"):
        assert ask(installed, "a@x") is not None


TRAPS = """
    create schema evil;
    create function evil.trap() returns text language plpgsql as $$ begin raise exception 'trapped'; end $$;
    create function evil.lower(text) returns text language sql as $$ select evil.trap() $$;
    create function evil.btrim(text, text) returns text language sql as $$ select evil.trap() $$;
    create function evil.equal(text, text) returns boolean language sql as $$ select evil.trap() is null $$;
    create operator evil.= (leftarg = text, rightarg = text, function = evil.equal);
    create function evil.get_user_contexts_by_emails(text[]) returns jsonb language sql as $$ select '{}'::jsonb $$;
    create collation evil."C" (provider = builtin, locale = 'C.UTF-8');
    create table evil.employees as select 666 as id, 'a@x' as email;
    create temporary table employees as select 666 as id, 'a@x' as email;
    create domain pg_temp.jsonb as pg_catalog.text check (false);
    create domain pg_temp.text as pg_catalog.text check (false);
    grant usage on schema evil to public;
    set search_path = evil, pg_temp, pg_catalog;
"""


@one_locale
def test_a_hostile_search_path_changes_nothing(installed: Connection) -> None:
    """Functions, operators, tables, types and collations that come first in the caller's search path are never used."""
    employ(installed, 1, "A@x")
    installed.execute(TRAPS)
    for sprung in ("lower('A'::pg_catalog.text)", "'a'::pg_catalog.text = 'a'::pg_catalog.text"):
        with pytest.raises(psycopg.errors.RaiseException, match="trapped"):
            installed.execute(f"select {sprung}".encode())
    with acting_as(installed, "service_role"):
        single = one(installed, "select hr.get_user_context_by_email('a@x')")
        batch = one(installed, "select hr.get_user_contexts_by_emails('{a@x}')")
    assert single["employee"]["id"] == 1
    assert batch == {"a@x": single}


@pytest.fixture
def owner(empty: Connection) -> Iterator[Connection]:
    """A connection that acts as the tables' owner, who is no superuser, as on Supabase."""
    empty.execute("drop role if exists migrations_owner; create role migrations_owner")
    empty.execute("create schema hr authorization migrations_owner")
    grant = sql.SQL("grant create on database {} to migrations_owner")
    empty.execute(grant.format(sql.Identifier(empty.info.dbname)))
    empty.execute("set role migrations_owner")
    apply(empty, TABLES)
    yield empty
    empty.execute("reset role; drop owned by migrations_owner cascade; drop role migrations_owner")


@one_locale
def test_an_owner_without_superuser_rights_installs_it(owner: Connection) -> None:
    """The tables' owner is all it takes, row security for others does not touch the answers, and service_role calls."""
    apply(owner, UP)
    employ(owner, 1, "a@x")
    owner.execute("alter table hr.employees enable row level security")
    owner.execute("set session authorization service_role")
    try:
        assert ask(owner, "a@x") is not None
    finally:
        owner.execute("reset session authorization; set role migrations_owner")


@one_locale
def test_row_security_that_binds_the_owner_is_an_error_and_not_an_unknown_user(owner: Connection) -> None:
    """Rows hidden from the functions' owner make them fail, on installing and on calling, and never half a context."""
    apply(owner, UP)
    employ(owner, 1, "a@x")
    owner.execute("alter table hr.assignments enable row level security, force row level security")
    for attempt in (lambda: ask(owner, "a@x"), lambda: ask_many(owner, ["a@x"]), lambda: apply(owner, UP)):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            attempt()


def test_plain_postgresql_without_supabase_s_roles() -> None:
    """Where no role of Supabase's exists, the files apply with a warning that says whom to grant what, and go again."""
    warnings: list[str] = []
    with Postgres.start() as server, psycopg.connect(server.dsn(), autocommit=True) as connection:
        assert not one(connection, "select count(*) from pg_roles where rolname = any (%s)", [list(ROLES)])
        connection.add_notice_handler(
            lambda notice: warnings.append(str(notice.message_primary)) if notice.severity == "WARNING" else None
        )
        apply(connection, TABLES, UP, UP)
        employ(connection, 1, "a@x")
        assert ask(connection, "a@x") is not None
        connection.execute("create role backend; grant usage on schema hr to backend")
        with acting_as(connection, "backend"), pytest.raises(psycopg.errors.InsufficientPrivilege):
            ask(connection, "a@x")
        apply(connection, DOWN)
        assert not one(connection, "select count(*) from pg_proc where pronamespace = 'hr'::regnamespace")
    assert len(warnings) == 2
    assert "service_role" in warnings[0]
