"""A project of its own, with people in it whose addresses are odd and whose rows are many."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Protocol

import anyio
import psycopg
import pytest

from ctxmiddleware import Identity
from ctxmiddleware.errors import SourceUnavailable
from ctxmiddleware.migrations import catalogue
from ctxmiddleware.secret import Secret
from ctxmiddleware.sources.pool import PoolOptions
from ctxmiddleware.sources.supabase import SupabaseSource
from examples.servers import Postgres, SupabaseFront, SupabaseProject
from examples.servers.stack import MIGRATION
from examples.servers.supabase.app import Dialect

from ..backends import ASYNCIO, UVLOOP
from ..matrix import in_full

ADA = "ada@example.com"
BUSY = "busy@example.com"
IDLE = "idle@example.com"
GONE = "gone@example.com"
# Stored normalised, so that the tables find them too.
ODD = [
    "o'hara+news@example.com",
    'quo"ted\\back@example.com',
    "comma,paren(1).dot@example.com",
    "under_score%percent*star@example.com",
    "a&b=c?d#e/f@example.com",
    "two words:colon;semi@example.com",
    "eq.in.(1,2)@example.com",
    "\u0130stanbul@example.com",
    "\u212aelvin@example.com",
    "\u6771\u4eac@example.com",
    "\U0001f600@example.com",
    "null",
]
# Told apart by the rule and by nothing else.
NEAR = ["underxscore%percent*star@example.com", "istanbul@example.com", "kelvin@example.com"]
MANY = 2345
# Seconds; what a test waits for in vain is given up before.
LONG = 60.0
_SLOTS = 700
# The way back takes the grants it gave; an installation that reads its tables has given them itself.
_TABLE_GRANTS = "grant usage on schema hr to service_role; grant select on all tables in schema hr to service_role;"


def people() -> list[str]:
    """Return every address that is stored in its normalised form."""
    return [ADA, BUSY, IDLE, GONE, *ODD, *NEAR]


def seed(connection: psycopg.Connection[Any]) -> None:
    """Write the rows all tests of this folder read."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into hr.regions values (%s, %s, %s)", [(n, f"R{n}", f"Région {n}") for n in range(1, 9)]
        )
        # The ids are long, so that a list of them fills more than one URL.
        slots = [(9_000_000_000_000_000 + n, f"S{n}", f'Slot "{n}"', n % 8 + 1) for n in range(_SLOTS)]
        cursor.executemany("insert into hr.slots values (%s, %s, %s, %s)", slots)
        employees = [
            (n, email, f"Person {n}", None if n % 2 else "Rep", "rep", email != GONE)
            for n, email in enumerate(people(), 1)
        ]
        cursor.executemany("insert into hr.employees values (%s, %s, %s, %s, %s, %s)", employees)
        cursor.execute("insert into hr.employees values (500, 'As.Stored@Example.COM', 'Mixed', null, 'rep', true)")
    write_assignments(connection)


def write_assignments(connection: psycopg.Connection[Any]) -> None:
    """Give everybody one or two slots, one person very many and one none."""
    rng = random.Random(7)
    rows: list[tuple[object, ...]] = []
    for person in [*range(1, len(people()) + 1), 500]:
        email = None if person == 500 else people()[person - 1]
        count = {BUSY: MANY, IDLE: 0}.get(email or "", 2)
        for _ in range(count):
            slot = 9_000_000_000_000_000 + rng.randrange(_SLOTS)
            rows.append(
                (len(rows) + 1, person, slot, rng.random() < 0.5, "2024-02-29", rng.choice([None, "2030-12-31"]))
            )
    with connection.cursor() as cursor:
        cursor.executemany("insert into hr.assignments values (%s, %s, %s, %s, %s, %s)", rows)


@pytest.fixture(scope="session")
def project(postgres: Postgres) -> Iterator[SupabaseProject]:
    """A project with the migration and these people."""
    with SupabaseProject.start(postgres, database="sources") as project:
        with psycopg.connect(project.dsn, autocommit=True) as connection:
            seed(connection)
        yield project


@pytest.fixture(scope="session")
def running_front(project: SupabaseProject, dialect: Dialect) -> Iterator[SupabaseFront]:
    """A front of one dialect before this folder's project."""
    with project.front(dialect) as front:
        yield front


@pytest.fixture(scope="session")
def running_replica(project: SupabaseProject, dialect: Dialect) -> Iterator[SupabaseFront]:
    """A front that takes GET only, as a read replica does."""
    with project.front(dialect, read_only=True) as front:
        yield front


@pytest.fixture
def replica(running_replica: SupabaseFront) -> Iterator[SupabaseFront]:
    """The read replica, its counts at nought and without faults."""
    running_replica.reset()
    yield running_replica
    running_replica.reset()


@pytest.fixture
def without_function(project: SupabaseProject, front: SupabaseFront) -> Iterator[SupabaseProject]:
    """The project with both functions dropped for real."""
    drop_functions(project)
    yield project
    install_functions(project)


def drop_functions(project: SupabaseProject) -> None:
    """Drop both functions and wait until PostgREST knows."""
    project.execute(catalogue.read(f"{MIGRATION}.down") + _TABLE_GRANTS, reload=True)


def install_functions(project: SupabaseProject) -> None:
    """Apply the shipped migration and wait until PostgREST knows."""
    project.execute(catalogue.read(MIGRATION), reload=True)


# What a gateway or a network does is the same before every PostgREST.
one_dialect = pytest.mark.parametrize("dialect", ["16"], indirect=True, scope="session")
# What a database does is the same behind both dialects, but for the words.
newer_dialect = pytest.mark.parametrize("dialect", ["16", in_full("12")], indirect=True, scope="session")
# Long waits that no event loop makes shorter, and what has to do with no loop: the other loops are for `tests_full`.
trio_in_full = pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP, in_full(("trio", {}), name="trio")])


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until a test moves it."""
    return Clock()


class Pauses:
    """Pauses that are noted and not waited for."""

    def __init__(self) -> None:
        self.noted: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.noted.append(seconds)
        await anyio.lowlevel.checkpoint()


@pytest.fixture
def pauses() -> Pauses:
    """The pauses before further tries."""
    return Pauses()


class Build(Protocol):
    """Builds a source for a front."""

    def __call__(self, **options: Any) -> SupabaseSource:
        """Return a source with these options beside address and key."""
        ...


@pytest.fixture
def build(front: SupabaseFront, clock: Clock, pauses: Pauses) -> Build:
    """Builds sources for the front, with a secret key, the test's clock and limits no healthy server reaches."""

    def one(**options: Any) -> SupabaseSource:
        defaults = {"key": Secret(front.secret_key), "clock": clock, "rng": random.Random(1), "sleep": pauses}
        given = {**defaults, "pool": patient(), **options}
        return SupabaseSource(given.pop("url", front.url), given.pop("key"), **given)

    return one


def patient(**limits: Any) -> PoolOptions:
    """Return limits that no healthy server reaches, however busy the machine is.

    Args:
        limits: shorter ones, for what a test lets hang.
    """
    return PoolOptions(
        **{"connect_timeout": LONG, "read_timeout": LONG, "total_timeout": LONG, "pool_timeout": LONG, **limits}
    )


async def answered(source: SupabaseSource, clock: Clock) -> bool:
    """Return whether the source gives the context by now."""
    clock.now += 60  # what failed again and again is left alone for a while, and then tried once
    with suppress(SourceUnavailable):
        return (await source.fetch(Identity(ADA))).value is not None
    return False
