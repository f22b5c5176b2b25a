"""How PostgreSQL, the shipped SQL, PostgREST and the front become one Supabase project."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Self, TypeVar

import psycopg

from .postgres import Postgres
from .postgrest import PostgREST
from .process import ServerFailed
from .supabase import Keys, SupabaseFront
from .supabase.app import Dialect

T = TypeVar("T")

REFERENCE_SCHEMA = "reference_schema"
MIGRATION = "0001_user_context"
# What a Supabase project has before any migration of its own.
_ROLES = """
do $$
declare name text;
begin
  foreach name in array array['anon', 'authenticated', 'service_role', 'authenticator'] loop
    if not exists (select from pg_roles where rolname = name) then
      execute format('create role %I', name);
    end if;
  end loop;
end $$;
alter role anon nologin noinherit;
alter role authenticated nologin noinherit;
alter role service_role nologin noinherit bypassrls;
alter role authenticator login noinherit;
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
grant anon, authenticated, service_role to authenticator;
"""
# What an installation that has always read its tables has given.
_TABLE_GRANTS = """
grant usage on schema hr to service_role;
grant select on all tables in schema hr to service_role;
"""


def create_roles(postgres: Postgres) -> None:
    """Give a server the roles that Supabase gives it; roles that are there are brought into the same form."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute(_ROLES)


@dataclass(frozen=True)
class SupabaseProject:
    """A project's database with PostgREST on it; fronts are started before it as they are needed.

    Args:
        postgres: the server.
        database: the database's name.
        postgrest: the PostgREST that serves it.
        keys: the project's keys.
    """

    postgres: Postgres
    database: str
    postgrest: PostgREST
    keys: Keys

    @classmethod
    @contextlib.contextmanager
    def start(
        cls,
        postgres: Postgres,
        *,
        database: str = "project",
        migrated: bool = True,
        pool: int = 10,
        keys: Keys | None = None,
    ) -> Iterator[Self]:
        """Create a database with Supabase's roles and the reference schema, and serve it.

        Args:
            postgres: a running server; the database is dropped in the end.
            database: the name of the new database.
            migrated: apply the shipped migration; without it the tables are there and readable, but not the functions.
            pool: PostgREST's connections to the database.
            keys: its keys; new ones where none are given.

        Raises:
            ServerFailed: PostgREST cannot run here.
        """
        # Here, because the front's process imports this file too, and has nothing to do with the product.
        from ctxmiddleware.migrations import catalogue

        keys = keys or Keys.mint()
        create_roles(postgres)
        with psycopg.connect(postgres.create_database(database), autocommit=True) as connection:
            connection.execute(catalogue.read(REFERENCE_SCHEMA).encode())
            connection.execute(catalogue.read(MIGRATION).encode() if migrated else _TABLE_GRANTS)
        dsn = postgres.dsn(database, user="authenticator")
        try:
            # Supabase exposes public first, so that hr is reached by naming it only.
            with PostgREST.start(dsn, jwt_secret=keys.jwt_secret, schemas=("public", "hr"), pool=pool) as postgrest:
                yield cls(postgres, database, postgrest, keys)
        finally:
            with contextlib.suppress(psycopg.OperationalError):
                postgres.drop_database(database)

    @property
    def dsn(self) -> str:
        """The database's address for its superuser."""
        return self.postgres.dsn(self.database)

    def execute(self, statements: str, *, reload: bool = False) -> None:
        """Run SQL as the superuser.

        Args:
            statements: one or more.
            reload: wait until PostgREST has read the schema again.
        """
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statements.encode())
        if reload:
            self.postgrest.reload_schema()

    def front(
        self, dialect: Dialect = "16", *, read_only: bool = False, keep_alive: int = 75
    ) -> AbstractContextManager[SupabaseFront]:
        """Return a front before this project; the arguments are those of `SupabaseFront.start`."""
        return SupabaseFront.start(
            self.postgrest.url, keys=self.keys, dialect=dialect, read_only=read_only, keep_alive=keep_alive
        )


def start_together(exits: ExitStack, *servers: AbstractContextManager[T]) -> list[T | ServerFailed]:
    """Start servers at the same time and return them, or why they cannot run here, in the order given.

    Args:
        exits: ends those that started.
        servers: what `start()` returned, not yet entered.
    """
    with ThreadPoolExecutor(max_workers=len(servers) or 1) as pool:
        futures = [pool.submit(_entered, server) for server in servers]
    started: list[T | ServerFailed] = []
    failures: list[BaseException] = []
    for server, future in zip(servers, futures, strict=True):
        failure = future.exception()
        if failure is None:
            exits.push(server)
            started.append(future.result())
        elif isinstance(failure, ServerFailed):
            started.append(failure)
        else:
            failures.append(failure)
    if failures:
        raise failures[0]
    return started


def _entered(server: AbstractContextManager[T]) -> T:
    return server.__enter__()
