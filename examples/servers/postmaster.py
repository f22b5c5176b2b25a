"""How a PostgreSQL server is run over a data folder of its own, as root and as an ordinary user."""

from __future__ import annotations

import contextlib
import ctypes
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import psycopg

from .accounts import COMPONENT, Account, accounts
from .handle import Server
from .process import Launch, ServerProcess, run_to_end, temporary_folder

_IPC_RMID = 0
_SETTINGS = (
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


class Postmaster(Server):
    """A running server whose superuser `postgres` needs no password."""

    @classmethod
    @contextlib.contextmanager
    def over(
        cls, name: str, fill: Sequence[str], settings: Sequence[str] = (), *, account: Account | None = None
    ) -> Iterator[Self]:
        """Fill a new data folder, serve it, and remove it in the end.

        Args:
            name: begins the name of the folder.
            fill: the command that fills it, without the argument that names it.
            settings: `name=value`, beside those that every server here has.
            account: as whom it runs; without it the best of `accounts()`.

        Raises:
            ServerFailed: it cannot run here.
        """
        account = account or accounts()[0]
        with temporary_folder(name, parent=account.temporary) as folder:
            account = account.prepared(folder)
            data = folder / "data"
            run_to_end(COMPONENT, account.launch(*fill, "-D", str(data)), folder / "log", timeout=60)
            words = [word for setting in (*_SETTINGS, *settings) for word in ("-c", setting)]

            def launch(port: int) -> Launch:
                return account.launch("postgres", "-D", str(data), "-p", str(port), *words)

            # SIGINT is its fast shutdown: it sends clients away instead of waiting for them.
            process = ServerProcess(COMPONENT, launch, _answers, log=folder / "log", stop_signal=signal.SIGINT)
            try:
                with process:
                    yield cls(process)
            finally:
                _release_memory(data / "postmaster.pid")

    def dsn(self, dbname: str = "postgres", *, user: str = "postgres") -> str:
        """Return the address of a database, as libpq, psycopg and PostgREST take it."""
        return _address(self.port, dbname, user)


def _release_memory(pid_file: Path) -> None:
    """Remove the shared memory that a killed server has left in the kernel; the 7th line of its pid file names it."""
    if pid_file.exists() and len(lines := pid_file.read_text().splitlines()) > 6:
        ctypes.CDLL(None).shmctl(int(lines[6].split()[1]), _IPC_RMID, None)


def _address(port: int, dbname: str, user: str) -> str:
    """Return the address of a database on a port."""
    return f"postgresql://{user}@127.0.0.1:{port}/{dbname}"


def _answers(port: int) -> bool:
    """Return whether a server on a port takes connections."""
    try:
        with psycopg.connect(_address(port, "postgres", "postgres"), connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False
