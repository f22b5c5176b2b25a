"""A streaming standby of a PostgreSQL that applies each commit some time after it was made."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Self

from .accounts import COMPONENT, accounts
from .handle import Server
from .postgres import SETTINGS, Postgres, address, answers, release_memory
from .process import Launch, ServerProcess, run_to_end, temporary_folder


class Standby(Server):
    """A running standby: it is read, and written by its primary alone."""

    @classmethod
    @contextlib.contextmanager
    def start(cls, primary: Postgres, *, delay: float) -> Iterator[Self]:
        """Copy a running primary into a folder of its own, follow it, and remove the copy in the end.

        Args:
            primary: the server to follow.
            delay: seconds after its COMMIT at which a transaction is applied (recovery_min_apply_delay).

        Raises:
            ServerFailed: it cannot run here.
        """
        account = accounts()[0]
        with temporary_folder("standby", parent=account.temporary) as folder:
            account = account.prepared(folder)
            data = folder / "data"
            origin = ("-d", f"{primary.dsn()}?application_name=standby")
            copy = ("-D", str(data), "-X", "stream", "-c", "fast", "-R", "--no-sync")
            run_to_end(COMPONENT, account.launch("pg_basebackup", *origin, *copy), folder / "log", timeout=60)
            settings = (*SETTINGS, f"recovery_min_apply_delay={round(1000 * delay)}ms")
            words = [word for setting in settings for word in ("-c", setting)]

            def launch(port: int) -> Launch:
                return account.launch("postgres", "-D", str(data), "-p", str(port), *words)

            process = ServerProcess(COMPONENT, launch, answers, log=folder / "log", stop_signal=signal.SIGINT)
            try:
                with process:
                    yield cls(process)
            finally:
                release_memory(data / "postmaster.pid")

    def dsn(self, dbname: str = "postgres", *, user: str = "postgres") -> str:
        """Return the address of a database."""
        return address(self.port, dbname, user)
