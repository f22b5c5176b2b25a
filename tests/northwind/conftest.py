"""Northwind loaded into the reference schema twice: once with the function, once with the tables only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Literal, TypeAlias

import psycopg
import pytest

from examples.servers import Postgres, SupabaseFront, SupabaseProject
from examples.servers.supabase.app import Dialect

from .facts import NORTHWIND

Way: TypeAlias = Literal["rpc", "legacy"]

# As it is there.
_THEIRS = """
create schema northwind;
create table northwind.regions (id int, name text);
create table northwind.territories (id text, name text, region_id int);
create table northwind.employees (id int, first_name text, last_name text, title text, hired_on date, reports_to int);
create table northwind.employee_territories (employee_id int, territory_id text);
"""
# And as the reference schema has it: territories are slots, and who works in them is assigned to them. The ids of
# territories are postal codes, whose zeros in front only the code keeps.
_INTO_OURS = """
insert into hr.regions select id, upper(name), name from northwind.regions;
insert into hr.slots select id::bigint, id, name, region_id from northwind.territories;
insert into hr.employees
  select id, lower(first_name || '.' || last_name) || '@northwind.example', first_name || ' ' || last_name, title,
    case when id in (select reports_to from northwind.employees) then 'manager' else 'rep' end, true
  from northwind.employees;
insert into hr.assignments
  select row_number() over (order by employee_id, territory_id), employee_id, territory_id::bigint,
    row_number() over (partition by employee_id order by territory_id) = 1, e.hired_on, null
  from northwind.employee_territories join northwind.employees as e on e.id = employee_id;
"""


def load(project: SupabaseProject) -> None:
    """Bring Northwind's tables into a project, and from them into the reference schema."""
    with psycopg.connect(project.dsn, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(_THEIRS)
        cursor.executemany("insert into northwind.regions values (%s, %s)", NORTHWIND.regions)
        cursor.executemany("insert into northwind.territories values (%s, %s, %s)", NORTHWIND.territories)
        cursor.executemany("insert into northwind.employees values (%s, %s, %s, %s, %s, %s)", NORTHWIND.employees)
        cursor.executemany("insert into northwind.employee_territories values (%s, %s)", NORTHWIND.employee_territories)
        cursor.execute(_INTO_OURS)


@pytest.fixture(scope="session")
def projects(postgres: Postgres) -> Iterator[Mapping[Way, SupabaseProject]]:
    """A project with the function and one without it, both with Northwind's people."""
    with ExitStack() as exits:
        found: dict[Way, SupabaseProject] = {
            "rpc": exits.enter_context(SupabaseProject.start(postgres, database="northwind")),
            "legacy": exits.enter_context(SupabaseProject.start(postgres, database="northwind_tables", migrated=False)),
        }
        for project in found.values():
            load(project)
        yield found


@pytest.fixture(scope="session")
def running_fronts(projects: Mapping[Way, SupabaseProject], dialect: Dialect) -> Iterator[Mapping[Way, SupabaseFront]]:
    """The fronts of both projects, in one dialect."""
    with ExitStack() as exits:
        yield {way: exits.enter_context(project.front(dialect)) for way, project in projects.items()}


@pytest.fixture
def fronts(running_fronts: Mapping[Way, SupabaseFront]) -> Mapping[Way, SupabaseFront]:
    """The fronts of both projects, their counts at nought."""
    for front in running_fronts.values():
        front.reset()
    return running_fronts


@pytest.fixture(params=["rpc", "legacy"])
def way(request: pytest.FixtureRequest) -> Way:
    """How a context is loaded: by the function, or by the tables where there is none."""
    found: Way = request.param
    return found
