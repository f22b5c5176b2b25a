"""The fleet: four processes, each with links of its own to Valkey and to Supabase, and everything it stands on."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from examples.servers import (
    Postgres,
    ServerProcess,
    SupabaseFront,
    SupabaseProject,
    TcpProxy,
    Valkey,
    create_roles,
    start_together,
)
from examples.servers.handle import Server
from examples.servers.process import Launch, inherited, temporary_folder

from . import company
from .app import ADMIN, LISTED_SECONDS, LOOP, PORT, REDIS_SECONDS
from .client import Connection, Reply, connected

PLACES: Final = 4
TOKEN: Final = "an-admin-token-of-the-chaos"
UNTRUSTED_TTL: Final = 2.0
STALE_FOR: Final = 3.0
RECYCLE: Final = 2.0
# Past its last beat an instance is listed, and may keep what it loads, for so long.
LISTED: Final = 12.0
_ROOT: Final = Path(__file__).parents[2]
_SETTINGS: Final = {
    "CTX_ADMIN_TOKEN": TOKEN,
    "CTX_TTL": "20",
    "CTX_NEGATIVE_TTL": "10",
    "CTX_UNTRUSTED_TTL": f"{UNTRUSTED_TTL:g}",
    "CTX_STALE_FOR": f"{STALE_FOR:g}",
    "CTX_SOFT_TIMEOUT": "0.5",
    "CTX_LOAD_TIMEOUT": "4",
    # Fewer than there are users, so that some are always being put out.
    "CTX_MAX_USERS": "40",
    "CTX_MAX_UNKNOWN": "4",
    LISTED_SECONDS: f"{LISTED:g}",
    "DB_MAX_CONNECTIONS": "8",
    "DB_POOL_TIMEOUT": "2",
    "DB_POOL_RECYCLE": f"{RECYCLE:g}",
}


class Instance(Server):
    """One place of the fleet, and the process that stands in it now.

    Args:
        process: that process.
        slot: which place.
        redis: its link to Valkey.
        source: its link to Supabase.
        log: what its processes have written.
    """

    def __init__(self, process: ServerProcess, slot: int, redis: TcpProxy, source: TcpProxy, log: Path) -> None:
        super().__init__(process)
        self.slot = slot
        self.redis = redis
        self.source = source
        self.log = log

    @classmethod
    @contextlib.contextmanager
    def start(
        cls, slot: int, valkey: Valkey, front: SupabaseFront, settings: Mapping[str, str] = _SETTINGS
    ) -> Iterator[Self]:
        """Serve the app behind links of its own; every other one on uvloop.

        Args:
            slot: which place.
            valkey: the tier it shares with the others.
            front: Supabase's outside.
            settings: variables of the app.

        Raises:
            ServerFailed: it cannot run here.
        """
        with (
            TcpProxy.start("127.0.0.1", valkey.port) as redis,
            TcpProxy.start("127.0.0.1", front.port) as source,
            temporary_folder("instance") as folder,
        ):
            links = {
                "REDIS_URL": f"redis://127.0.0.1:{redis.port}/0",
                "SUPABASE_URL": f"http://127.0.0.1:{source.port}",
                "SUPABASE_KEY": front.secret_key,
                LOOP: ("asyncio", "uvloop")[slot % 2],
            }

            def launch(port: int) -> Launch:
                path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
                given = {name: value for name, value in inherited().items() if not name.startswith(_OURS)}
                env = {**given, **settings, **links, PORT: str(port), "PYTHONPATH": path}
                return Launch([sys.executable, "-W", "default", "-m", f"{__package__}.app"], env)

            log = folder / "log"
            with ServerProcess(f"instance {slot}", launch, _answers, log=log) as process:
                yield cls(process, slot, redis, source, log)

    async def ask(self, target: str, *, asks: str | None = None) -> Reply:
        """Ask for a page, as somebody or as nobody, over a connection of its own."""
        headers = {} if asks is None else {"x-asks": asks}
        async with connected(self.port) as connection:
            return await connection.ask("GET", target, headers, timeout=60.0)

    async def level(self) -> dict[str, Any]:
        """Return how many tasks and sockets its process has."""
        found: dict[str, Any] = (await self.ask("/private/level")).json()
        return found


# Settings of the machine's own that would change what is measured.
_OURS: Final = ("CTX_", "REDIS_", "SUPABASE_", "DB_POOL", "DB_MAX", "BIGQUERY_")


@dataclass(frozen=True)
class Fleet:
    """Everything that runs.

    Args:
        postgres: the database's server, which never fails.
        project: its database and PostgREST.
        front: Supabase's outside.
        valkey: the tier they share.
        instances: the four.
    """

    postgres: Postgres
    project: SupabaseProject
    front: SupabaseFront
    valkey: Valkey
    instances: tuple[Instance, ...]

    @classmethod
    @contextlib.contextmanager
    def start(cls, places: int = PLACES, *, redis_seconds: float | None = None) -> Iterator[Self]:
        """Start everything, with all users in the database, and end it.

        Args:
            places: how many processes.
            redis_seconds: how long each answer of Redis and each confirmation is waited for; None is as shipped.

        Raises:
            ServerFailed: something cannot run here.
        """
        with ExitStack() as exits:
            postgres = exits.enter_context(Postgres.start(locale="C"))
            create_roles(postgres)
            project = exits.enter_context(SupabaseProject.start(postgres, database="chaos"))
            company.fill(project)
            front = exits.enter_context(project.front("16"))
            valkey = exits.enter_context(Valkey.start())
            started = start_together(
                exits, *(Instance.start(slot, valkey, front, _settings(redis_seconds)) for slot in range(places))
            )
            instances = []
            for each in started:
                if isinstance(each, Exception):
                    raise each
                instances.append(each)
            yield cls(postgres, project, front, valkey, tuple(instances))


def _settings(redis_seconds: float | None) -> dict[str, str]:
    return _SETTINGS if redis_seconds is None else {**_SETTINGS, REDIS_SECONDS: f"{redis_seconds:g}"}


async def invalidate(connection: Connection, user: int | None, *, timeout: float = 6.0) -> Reply:
    """Invalidate a user, or everybody where it is None, through the admin of one process."""
    what = "/clear" if user is None else f"/invalidate/{company.address(user)}"
    return await connection.ask("POST", ADMIN + what, {"Authorization": f"Bearer {TOKEN}"}, timeout=timeout)


async def together(fleet: Fleet, user: int, count: int, *, instances: Sequence[Instance] = ()) -> list[dict[str, Any]]:
    """Let every process, or some of them, ask so many times at once for one user, all at the same moment."""
    at = time.monotonic() + 0.25
    target = f"/private/misses?email={company.address(user)}&count={count}&at={at}"
    replies = await asyncio.gather(*(instance.ask(target) for instance in instances or fleet.instances))
    return [reply.json() for reply in replies]


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/private/level")
        return connection.getresponse().status == 200
    except http.client.HTTPException:
        return False
    finally:
        connection.close()
