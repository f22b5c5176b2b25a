"""Which servers the demo runs on: started one after the other, filled, and left out where they cannot run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeVar

import httpx2
import msgspec
import psycopg
import redis
from psycopg import sql

from examples.servers import Postgres, ServerFailed, SupabaseFront, SupabaseProject, Valkey
from examples.servers.bigquery import BigQueryStandIn

from .company import Company
from .screen import Screen

WAREHOUSE_PROJECT = "demo-warehouse"
ZONES_TABLE = "sales.zones"
_DATABASE = "project"
# By the words of --without, which shows how the demo and the middleware do on a platform that lacks one.
COMPONENTS = {
    "postgres": "PostgreSQL",
    "postgrest": "PostgREST",
    "front": "Supabase's front",
    "valkey": "Valkey",
    "bigquery": "BigQuery stand-in",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Rig:
    """The servers that run.

    Args:
        project: the database and its PostgREST.
        front: Supabase's address; it counts the calls of the database.
        valkey: what speaks Redis, or None where it cannot run.
        warehouse: what speaks BigQuery, or None where it cannot run.
    """

    project: SupabaseProject
    front: SupabaseFront
    valkey: Valkey | None
    warehouse: BigQueryStandIn | None

    def environ(self) -> dict[str, str]:
        """Return the variables that point an app to these servers."""
        found = {"SUPABASE_URL": self.front.url, "SUPABASE_KEY": self.front.secret_key}
        if self.valkey is not None:
            found["REDIS_URL"] = self.valkey.url
        if self.warehouse is not None:
            found["BIGQUERY_EMULATOR_HOST"] = self.warehouse.url
            found["BIGQUERY_PROJECT"] = WAREHOUSE_PROJECT
            found["BIGQUERY_ZONES_TABLE"] = ZONES_TABLE
        return found

    def far_away(self, milliseconds: float) -> None:
        """Put a round trip of this time between the apps and both the database and the warehouse."""
        self.front.delay(milliseconds)
        if self.warehouse is not None:
            self.warehouse.behave(delay_ms=milliseconds)

    def database_calls(self) -> int:
        """Return the requests that the front has seen."""
        return self.front.counts().requests

    def commits(self) -> int:
        """Return the transactions that PostgreSQL itself has counted in the database.

        PostgREST's sessions report theirs within ten seconds, or when they end: so they are ended, and it opens others.
        """
        with psycopg.connect(self.project.postgres.dsn(), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s AND usename = %s",
                (self.project.database, "authenticator"),
            )
        return self.project.postgres.commits(self.project.database)

    def warehouse_calls(self) -> int:
        """Return the queries that the warehouse has run."""
        return 0 if self.warehouse is None else self.warehouse.queries()


@contextmanager
def running(screen: Screen, company: Company, without: Collection[str]) -> Iterator[Rig]:
    """Start the servers, fill them, and end them.

    Args:
        screen: where each step is shown.
        company: what they are filled with.
        without: keys of COMPONENTS that are not started.

    Raises:
        ServerFailed: PostgreSQL or PostgREST cannot run here; nothing can be compared without them.
    """
    with ExitStack() as exits:
        start = _Starter(screen, exits, without)
        postgres = start.needed("postgres", Postgres.start(), _postgres_version)
        project = start.needed("postgrest", SupabaseProject.start(postgres, database=_DATABASE), _postgrest_version)
        front = start.needed("front", project.front(), lambda front: "prefix, key check and counts")
        with screen.step("Company") as step:
            fill(project.dsn, company)
            step.detail = f"{len(company.employees):,} employees on {len(company.slots):,} slots"
        valkey = start.wanted("valkey", Valkey.start(), _valkey_version)
        tables = {ZONES_TABLE: [msgspec.structs.asdict(zone) for zone in company.zones]}
        warehouse = start.wanted("bigquery", BigQueryStandIn.start(tables), lambda _: f"on DuckDB {version('duckdb')}")
        yield Rig(project, front, valkey, warehouse)


class _Starter:
    """Starts one server after the other and shows what has come of it.

    Args:
        screen: where it is shown.
        exits: ends those that started.
        without: keys of COMPONENTS that are treated as if they could not run.
    """

    def __init__(self, screen: Screen, exits: ExitStack, without: Collection[str]) -> None:
        self._screen = screen
        self._exits = exits
        self._without = without

    def needed(self, key: str, server: AbstractContextManager[T], about: Callable[[T], str]) -> T:
        """Start a server without which there is no demo."""
        outcome = self._start(key, server, about)
        if isinstance(outcome, ServerFailed):
            raise outcome
        return outcome

    def wanted(self, key: str, server: AbstractContextManager[T], about: Callable[[T], str]) -> T | None:
        """Start a server that the demo can do without."""
        outcome = self._start(key, server, about)
        return None if isinstance(outcome, ServerFailed) else outcome

    def _start(self, key: str, server: AbstractContextManager[T], about: Callable[[T], str]) -> T | ServerFailed:
        with self._screen.step(COMPONENTS[key]) as step:
            try:
                if key in self._without:
                    raise ServerFailed(COMPONENTS[key], f"left out by --without {key}")
                running = self._exits.enter_context(server)
            except ServerFailed as failure:
                step.detail = f"not here: {failure.reason}"
                return failure
            step.detail = about(running)
            return running


def _postgres_version(postgres: Postgres) -> str:
    with psycopg.connect(postgres.dsn()) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    return str(row[0]) if row else ""


def _postgrest_version(project: SupabaseProject) -> str:
    return httpx2.get(project.postgrest.url).headers["server"].removeprefix("postgrest/")


def _valkey_version(valkey: Valkey) -> str:
    with redis.Redis.from_url(valkey.url) as client:
        return str(client.info("server")["valkey_version"])


def fill(dsn: str, company: Company) -> None:
    """Put a company into the tables of the reference schema.

    Args:
        dsn: the database.
        company: who works there.
    """
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        for table in ("regions", "slots", "employees", "assignments"):
            rows = getattr(company, table)
            columns = sql.SQL(", ").join(map(sql.Identifier, rows[0].__struct_fields__))
            copy = sql.SQL("COPY hr.{} ({}) FROM STDIN").format(sql.Identifier(table), columns)
            with cursor.copy(copy) as destination:
                for row in rows:
                    destination.write_row(msgspec.structs.astuple(row))
        cursor.execute("ANALYZE hr.regions, hr.slots, hr.employees, hr.assignments")
