"""Whether many employees are answered through indexes only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import psycopg
import pytest

from examples.servers.postgres import Postgres

from ..matrix import Cases
from .hr import TABLES, UP, Connection, apply, ask, ask_many, employ, one

# Before each push a fifth of them.
EMPLOYEES = 100_000
CALLS = 20
BATCH = 100

# By formatting and not by parameters: several statements go in one message only without them.
_LOAD = """
insert into hr.regions select i, 'R' || i, 'Region ' || i from generate_series(2, 40) as i;
insert into hr.slots select i, 'S' || i, 'Slot ' || i, 1 + i % 40 from generate_series(2, {slots}) as i;
insert into hr.employees select i, 'Person.' || i || '@Example.org', 'Person ' || i, null, 'rep', i % 10 > 0
  from generate_series(2, {employees}) as i;
insert into hr.assignments select i, 1 + i / 2 % {employees}, 1 + i * 7 % {slots}, i % 2 = 0, '2024-01-01', null
  from generate_series(2, 2 * {employees}) as i;
"""


@pytest.fixture(scope="module")
def employees(cases: Cases) -> int:
    """How many employees there are."""
    return EMPLOYEES if cases is Cases.FULL else EMPLOYEES // 5


@pytest.fixture(scope="module", params=[3000, 60], ids=["3000-slots", "60-slots"])
def early(request: pytest.FixtureRequest, postgres: Postgres, employees: int) -> Iterator[Connection]:
    """A session that called both functions while the tables held one row each, and keeps the plans of that time."""
    name = f"migrations_volume_{request.param}"
    with psycopg.connect(postgres.create_database(name), autocommit=True) as connection:
        apply(connection, TABLES, UP)
        connection.execute("insert into hr.regions values (1, 'R1', 'Region 1')")
        connection.execute("insert into hr.slots values (1, 'S1', 'Slot 1', 1)")
        employ(connection, 1, "Person.1@Example.org")
        connection.execute("analyze")
        for _ in range(10):
            ask(connection, "person.1@example.org")
            ask_many(connection, ["person.1@example.org"])
        connection.execute(_LOAD.format(slots=request.param, employees=employees).encode())
        yield connection
    postgres.drop_database(name)


def _scans(connection: Connection, column: str) -> Mapping[str, int]:
    connection.execute("select pg_stat_force_next_flush()")
    query = f"select relname, {column} from pg_stat_user_tables where schemaname = 'hr'"
    return dict(connection.execute(query.encode()).fetchall())


def _ask_some(connection: Connection, employees: int) -> None:
    step = employees // CALLS - 1
    for call in range(CALLS):
        context = ask(connection, f"  PERSON.{1 + call * step}@example.org")
        assert context is not None
        assert len(context.assignments) in (1, 2)
        assert context.slots
        assert context.regions


def _ask_many(connection: Connection, employees: int) -> None:
    apart = employees // BATCH - 3
    for call in range(CALLS):
        asked = [f"person.{1 + call + step * apart}@example.org" for step in range(BATCH)]
        found = ask_many(connection, asked)
        assert len(found) == BATCH
        assert all(found.values())


def _read_by_index_only(connection: Connection, employees: int, call: Callable[[Connection, int], None]) -> None:
    whole, by_index = _scans(connection, "seq_scan"), _scans(connection, "idx_scan")
    call(connection, employees)
    assert _scans(connection, "seq_scan") == whole
    after = _scans(connection, "idx_scan")
    assert all(after[table] > by_index[table] for table in ("employees", "assignments", "slots"))


def test_no_table_is_read_whole(early: Connection, employees: int) -> None:
    """Neither function scans a table: by a plan kept from small tables, without statistics, and with them."""
    for analyse in (False, True):
        if analyse:
            early.execute("analyze")
        with psycopg.connect(early.info.dsn, autocommit=True) as late:
            for session in (early, late):
                _read_by_index_only(session, employees, _ask_some)
                _read_by_index_only(session, employees, _ask_many)


def test_a_table_that_is_read_whole_is_counted(early: Connection) -> None:
    """The counter these tests trust moves when a query has no index to use."""
    before = _scans(early, "seq_scan")
    assert one(early, "select count(*) from hr.slots where name = 'Slot 7'") == 1
    assert _scans(early, "seq_scan") == {**before, "slots": before["slots"] + 1}
