"""A streaming standby of a PostgreSQL that applies each commit some time after it was made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Self

from .postgres import Postgres
from .postmaster import Postmaster


class Standby(Postmaster):
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
        origin = ("-d", f"{primary.dsn()}?application_name=standby")
        copy = ("pg_basebackup", *origin, "-X", "stream", "-c", "fast", "-R", "--no-sync")
        with cls.over("standby", copy, [f"recovery_min_apply_delay={round(1000 * delay)}ms"]) as server:
            yield server
