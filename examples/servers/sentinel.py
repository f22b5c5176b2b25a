"""How a master, a replica and the sentinels that watch them are started."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import redis

from .failure import ServerFailed
from .handle import Server
from .process import Launch, ServerProcess, temporary_folder
from .programs import VALKEY_9, Program
from .valkey import Tls, Valkey, answers

_READY_WITHIN: Final = 20.0
_PROMPT: Final = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


class SentinelGroup:
    """Two servers, one the master of the other, and three sentinels that promote the other when the master is gone.

    Args:
        servers: the master and the replica, as they were at first.
        sentinels: the sentinels.
        tls: the certificate of all of them, where they speak TLS only.
    """

    SERVICE: Final = "contexts"

    def __init__(self, servers: Sequence[Valkey], sentinels: Sequence[Server], tls: Tls | None) -> None:
        self.master, self.replica = servers
        self.sentinels = sentinels
        self._tls = tls

    @classmethod
    @contextlib.contextmanager
    def start(cls, *, program: Program = VALKEY_9, tls: Tls | None = None, down_after_ms: int = 500) -> Iterator[Self]:
        """Serve an empty store, watched.

        Args:
            program: which server all five are.
            tls: makes all five speak TLS and nothing else.
            down_after_ms: milliseconds of silence after which a sentinel takes a server for down.

        Raises:
            ServerFailed: they cannot run here.
        """
        with contextlib.ExitStack() as stack:
            master = stack.enter_context(Valkey.start(program=program, tls=tls, args=_PROMPT))
            replica = stack.enter_context(Valkey.start(program=program, tls=tls, args=_PROMPT))
            with speaking(replica.port, tls) as client:
                client.replicaof("127.0.0.1", str(master.port))
            sentinels = [
                stack.enter_context(_sentinel(program, tls, cls.SERVICE, master.port, down_after_ms)) for _ in range(3)
            ]
            group = cls((master, replica), sentinels, tls)
            wait_until(f"{program.name} under Sentinel", group._is_watched)
            yield group

    def __repr__(self) -> str:
        return f"<SentinelGroup: {self.master!r}, {self.replica!r}, {len(self.sentinels)} sentinels>"

    @property
    def url(self) -> str:
        """Its address for `REDIS_URL`."""
        scheme, query = ("redis", "") if self._tls is None else ("rediss", f"?ssl_ca_certs={self._tls.authority}")
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"{scheme}+sentinel://{hosts}/{self.SERVICE}/0{query}"

    def agree_on(self, server: Valkey) -> bool:
        """Return whether every running sentinel names a server as the master, and takes it for healthy.

        After a failover a sentinel takes the new master for down until it has connected to it, for up to a second.
        """
        states = [self._state(sentinel) for sentinel in self.sentinels if sentinel.running]
        return all((state["port"], state["flags"]) == (server.port, "master") for state in states)

    def _is_watched(self) -> bool:
        with speaking(self.replica.port, self._tls) as client:
            if client.info("replication")["master_link_status"] != "up":
                return False
        states = [self._state(sentinel) for sentinel in self.sentinels]
        return all(
            (state["flags"], state["num-slaves"], state["num-other-sentinels"]) == ("master", 1, 2) for state in states
        )

    def _state(self, sentinel: Server) -> dict[str, Any]:
        with speaking(sentinel.port, self._tls) as client:
            return dict(client.sentinel_master(self.SERVICE))


@contextlib.contextmanager
def _sentinel(program: Program, tls: Tls | None, service: str, master: int, down_after_ms: int) -> Iterator[Server]:
    with temporary_folder("sentinel") as folder:
        ports = ["--port", "0", *tls.arguments, "--tls-port"] if tls else ["--port"]

        def launch(port: int) -> Launch:
            # A sentinel writes what it learns into this file, and goes on from there when it is restarted.
            settings = _settings(folder, service, master, down_after_ms)
            listening = [*ports, str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
            return Launch([str(program.path), str(settings), "--sentinel", *listening])

        name = f"{program.name} as Sentinel"
        with ServerProcess(name, launch, answers(tls), log=folder / "log") as process:
            yield Server(process)


def _settings(folder: Path, service: str, master: int, down_after_ms: int) -> Path:
    path = folder / "sentinel.conf"
    if not path.exists():
        path.write_text(
            f"sentinel monitor {service} 127.0.0.1 {master} 2\n"
            f"sentinel down-after-milliseconds {service} {down_after_ms}\n"
            f"sentinel failover-timeout {service} 3000\n",
            encoding="utf-8",
        )
    return path


def speaking(port: int, tls: Tls | None) -> Any:
    """Return a client of a server on this machine."""
    trusted = None if tls is None else str(tls.authority)
    return redis.Redis(port=port, decode_responses=True, socket_timeout=2, ssl=tls is not None, ssl_ca_certs=trusted)


def wait_until(component: str, ready: Callable[[], bool]) -> None:
    """Wait for several servers to have found each other.

    Raises:
        ServerFailed: they have not within 20 seconds.
    """
    end = time.monotonic() + _READY_WITHIN
    last: object = None
    while time.monotonic() < end:
        try:
            if ready():
                return
        except (redis.RedisError, KeyError) as error:
            last = error
        time.sleep(0.02)
    raise ServerFailed(component, f"they have not found each other within {_READY_WITHIN:g} s", str(last or ""))
