"""How a real PostgreSQL is started from its package, as root and as an ordinary user."""

from __future__ import annotations

import contextlib
import ctypes
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

import psycopg
from psycopg import sql

from .accounts import COMPONENT, Account, accounts
from .handle import Server
from .process import Launch, ServerProcess, run_to_end, temporary_folder

_IPC_RMID = 0
_LOCALES = {
    "C": ("--locale=C",),
    "C.UTF-8": ("--locale-provider=builtin", "--locale=C.UTF-8"),
}
SETTINGS = (
    # Nothing has to survive the machine; synchronous_commit stays on, so that commits survive a kill of the server.
    "fsync=off",
    "full_page_writes=off",
    "max_connections=300",
    "listen_addresses=127.0.0.1",
    # A socket's path has a limit of some hundred bytes, which a temporary folder may pass.
    "unix_socket_directories=",
    # Its transactions would be counted with those of the clients.
    "autovacuum=off",
    # The default leaves a file in /dev/shm behind when the server is killed.
    "dynamic_shared_memory_type=mmap",
)


class Postgres(Server):
    """A running PostgreSQL whose superuser `postgres` needs no password."""

    @classmethod
    @contextlib.contextmanager
    def start(cls, *, locale: Literal["C", "C.UTF-8"] = "C", account: Account | None = None) -> Iterator[Self]:
        """Make a new cluster in a folder of its own, serve it, and remove both in the end.

        Args:
            locale: by which rule `lower()` and sorting go where nothing else is said.
            account: as whom it runs; without it the best of `accounts()`.

        Raises:
            ServerFailed: it cannot run here.
        """
        account = account or accounts()[0]
        with temporary_folder("postgres", parent=account.temporary) as folder:
            account = account.prepared(folder)
            data = folder / "data"
            new = ("-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", *_LOCALES[locale])
            run_to_end(COMPONENT, account.launch("initdb", *new), folder / "log", timeout=60)
            settings = [word for setting in SETTINGS for word in ("-c", setting)]

            def launch(port: int) -> Launch:
                return account.launch("postgres", "-D", str(data), "-p", str(port), *settings)

            # SIGINT is its fast shutdown: it sends clients away instead of waiting for them.
            process = ServerProcess(COMPONENT, launch, answers, log=folder / "log", stop_signal=signal.SIGINT)
            try:
                with process:
                    yield cls(process)
            finally:
                release_memory(data / "postmaster.pid")

    def dsn(self, dbname: str = "postgres", *, user: str = "postgres") -> str:
        """Return the address of a database, as libpq, psycopg and PostgREST take it."""
        return address(self.port, dbname, user)

    def create_database(self, name: str) -> str:
        """Create an empty database and return its address."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, sending its clients away."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def commits(self, dbname: str) -> int:
        """Return how many transactions the server has committed in a database; opening a session is one.

        A busy session reports its own once a second, one that fell idle 10 s later at most (PGSTAT_IDLE_INTERVAL).
        """
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute("SELECT pg_stat_force_next_flush()")
            query = "SELECT xact_commit FROM pg_stat_database WHERE datname = %s"
            row = connection.execute(query, [dbname]).fetchone()
        if row is None:
            raise LookupError(f"there is no database {dbname!r}")
        return int(row[0])


def release_memory(pid_file: Path) -> None:
    """Remove the shared memory that a killed server has left in the kernel; the 7th line of its pid file names it."""
    if pid_file.exists() and len(lines := pid_file.read_text().splitlines()) > 6:
        ctypes.CDLL(None).shmctl(int(lines[6].split()[1]), _IPC_RMID, None)


def address(port: int, dbname: str, user: str) -> str:
    """Return the address of a database on a port."""
    return f"postgresql://{user}@127.0.0.1:{port}/{dbname}"


def answers(port: int) -> bool:
    """Return whether a server on a port takes connections."""
    try:
        with psycopg.connect(address(port, "postgres", "postgres"), connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False
