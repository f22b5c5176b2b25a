"""How a real Valkey, or another server that speaks Redis, is started from its package."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from .handle import Server
from .ports import free_port
from .process import Launch, ServerProcess, temporary_folder
from .programs import VALKEY_9, Program


@dataclass(frozen=True)
class Tls:
    """The files of a server's certificate.

    Args:
        authority: certificates that clients and other servers trust.
        certificate: the server's chain.
        key: its private key.
    """

    authority: Path
    certificate: Path
    key: Path

    @property
    def context(self) -> ssl.SSLContext:
        """What a server needs that is no Redis itself."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context

    @property
    def arguments(self) -> list[str]:
        """What makes a server speak TLS, to others of its kind too."""
        files = {"ca-cert": self.authority, "cert": self.certificate, "key": self.key}
        named = [word for name, path in files.items() for word in (f"--tls-{name}-file", str(path))]
        return [*named, "--tls-auth-clients", "no", "--tls-replication", "yes"]


class Valkey(Server):
    """A running Valkey that stores nothing on disk.

    Args:
        process: its process.
        folder: its folder.
        tls: its certificate, where it speaks TLS only.
    """

    def __init__(self, process: ServerProcess, folder: Path, tls: Tls | None) -> None:
        super().__init__(process)
        self._folder = folder
        self._tls = tls

    @classmethod
    @contextlib.contextmanager
    def start(
        cls,
        *,
        args: Sequence[str] = (),
        program: Program = VALKEY_9,
        tls: Tls | None = None,
        users: Sequence[str] = (),
        choose_port: Callable[[], int] = free_port,
    ) -> Iterator[Self]:
        """Serve an empty store and end it.

        Args:
            args: more arguments of valkey-server.
            program: which server it is.
            tls: makes it speak TLS and nothing else on its port.
            users: lines of an ACL file, `user NAME on >PASSWORD ...`; without it every client may do everything.
            choose_port: gives a port.

        Raises:
            ServerFailed: it cannot run here.
        """
        with temporary_folder("valkey") as folder:
            acl = ["--aclfile", _written(folder / "acl", users)] if users else []
            ports = ["--port", "0", *tls.arguments, "--tls-port"] if tls else ["--port"]

            def launch(port: int) -> Launch:
                # By its name alone: the path of a socket may not have more than a hundred characters.
                listening = [*ports, str(port), "--bind", "127.0.0.1", "--unixsocket", _socket(folder).name]
                storing = ["--dir", str(folder), "--save", "", "--appendonly", "no"]
                return Launch([str(program.path), *listening, *storing, *acl, *args])

            log = folder / "log"
            with ServerProcess(program.name, launch, answers(tls), log=log, choose_port=choose_port) as process:
                yield cls(process, folder, tls)

    @property
    def url(self) -> str:
        """Its address for `REDIS_URL`."""
        if self._tls is None:
            return f"redis://127.0.0.1:{self.port}/0"
        return f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={self._tls.authority}"

    @property
    def socket_url(self) -> str:
        """The address of its unix socket."""
        return f"unix://{_socket(self._folder)}?db=0"


def answers(tls: Tls | None = None) -> Callable[[int], bool]:
    """Return what asks whether a server answers on a port."""

    def ask(port: int) -> bool:
        with _connected(port, tls) as connection:
            connection.sendall(b"PING\r\n")
            # A server that asks for a password is there, too.
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))

    return ask


def _connected(port: int, tls: Tls | None) -> socket.socket:
    plain = socket.create_connection(("127.0.0.1", port), timeout=1)
    if tls is None:
        return plain
    return ssl.create_default_context(cafile=str(tls.authority)).wrap_socket(plain, server_hostname="127.0.0.1")


def _socket(folder: Path) -> Path:
    return folder / "s"


def _written(path: Path, lines: Sequence[str]) -> str:
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return str(path)
