"""The PostgreSQL that a machine has on its path, for what the packaged one was built without: ICU and citext."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.servers.accounts import Account, accounts
from examples.servers.process import Launch, ServerFailed


@dataclass(frozen=True)
class OnPath(Account):
    """A way to run the programs that lie beside the `postgres` on the path."""

    def launch(self, program: str, *arguments: str) -> Launch:
        """Return how one of the programs is executed."""
        return Launch([*self.prefix, str(self.root / program), *arguments], user=self.user)

    def prepared(self, folder: Path) -> Account:
        """Give a folder to the account; every account may reach what is on the path."""
        if self.user is not None:
            shutil.chown(folder, self.user)
        return self


@functools.cache
def with_icu() -> Account | None:
    """Return a way to run a PostgreSQL with ICU, or None where the machine has none."""
    found = shutil.which("postgres")
    if found is None:
        return None
    programs = Path(found).resolve().parent
    if not _has_icu([str(programs / "pg_config"), "--configure"]):
        return None
    try:
        packaged = accounts()[0]
    except ServerFailed:
        return None
    return OnPath(programs, packaged.prefix, packaged.user)


def _has_icu(command: Sequence[str]) -> bool:
    try:
        return b"icu" in subprocess.run(command, capture_output=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return False
