"""How the front is started, counted and disturbed from outside its process."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from ..handle import Server
from ..process import Launch, ServerProcess, inherited, temporary_folder
from .app import SETTINGS, Dialect, Settings
from .connections import CONTROL
from .faults import Action, Fault
from .keys import Keys

COMPONENT = "Supabase front"
_ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class FrontCounts:
    """What the front has seen since its last reset.

    Args:
        kinds: requests by kind, "rpc:NAME" or "table:NAME".
        refused: those its own key check refused.
        most_under_way: requests at the same time.
        connections: clients' connections open now.
        most_connections: clients' connections open at the same time.
        connections_opened: clients' connections opened.
        oldest_used_connection: seconds a connection had been open when a request came over it, at most.
    """

    kinds: Mapping[str, int]
    refused: int
    most_under_way: int
    connections: int
    most_connections: int
    connections_opened: int
    oldest_used_connection: float

    @property
    def requests(self) -> int:
        """All requests."""
        return sum(self.kinds.values())

    def rpc(self, name: str) -> int:
        """Return how often a function was called."""
        return self.kinds.get(f"rpc:{name}", 0)

    def table(self, name: str) -> int:
        """Return how often a table was read."""
        return self.kinds.get(f"table:{name}", 0)


class SupabaseFront(Server):
    """A running front."""

    def __init__(self, process: ServerProcess, keys: Keys, dialect: Dialect) -> None:
        super().__init__(process)
        self.keys = keys
        self.dialect = dialect

    @classmethod
    @contextlib.contextmanager
    def start(
        cls,
        upstream_url: str,
        *,
        keys: Keys,
        dialect: Dialect = "16",
        read_only: bool = False,
        keep_alive: int = 75,
    ) -> Iterator[Self]:
        """Serve Supabase's REST interface before a PostgREST.

        Args:
            upstream_url: PostgREST's address.
            keys: the project's keys, by whose secret PostgREST checks tokens.
            dialect: "12" passes the answers of 12.0.2 on, "16" gives them the form of 16.
            read_only: refuse what is not GET or HEAD, as a read replica does.
            keep_alive: seconds an idle connection of a client is kept.

        Raises:
            ServerFailed: it cannot run here.
        """
        upstream = urlsplit(upstream_url)

        def launch(port: int) -> Launch:
            settings = Settings(
                port=port,
                upstream_host=upstream.hostname or "127.0.0.1",
                upstream_port=upstream.port or 80,
                dialect=dialect,
                read_only=read_only,
                keep_alive=keep_alive,
                keys=keys,
            )
            path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
            # The environment, because arguments are shown to everybody.
            env = inherited(PYTHONPATH=path, **{SETTINGS: json.dumps(dataclasses.asdict(settings))})
            return Launch([sys.executable, "-m", f"{__package__}.app"], env)

        with (
            temporary_folder("front") as folder,
            ServerProcess(COMPONENT, launch, _answers, log=folder / "log") as process,
        ):
            yield cls(process, keys, dialect)

    @property
    def url(self) -> str:
        """The project's address for `SUPABASE_URL`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def service_key(self) -> str:
        """The legacy service_role key."""
        return self.keys.service_role

    @property
    def secret_key(self) -> str:
        """The new key, `sb_secret_...`."""
        return self.keys.secret

    @property
    def anon_key(self) -> str:
        """The legacy anon key."""
        return self.keys.anon

    def counts(self) -> FrontCounts:
        """Return what it has seen since the last reset."""
        return FrontCounts(**_control(self.port, "GET", "/counts"))

    def reset(self) -> None:
        """Count from nought, forget all faults and delays."""
        _control(self.port, "POST", "/reset")

    def delay(self, milliseconds: float) -> None:
        """Add a time to every request from now on, as a network between does."""
        _control(self.port, "POST", "/delay", {"seconds": milliseconds / 1000})

    def fault(
        self,
        *,
        status: int = 503,
        headers: Mapping[str, str] | None = None,
        body: str | Mapping[str, object] = "",
        times: int | None = 1,
        contains: str = "",
    ) -> None:
        """Answer requests to come with this instead of the truth.

        Args:
            status: the HTTP status.
            headers: the reply's headers.
            body: text, or an object that is sent as JSON.
            times: how many requests; None for all until `reset()`.
            contains: only those whose path and query hold this.
        """
        sent = dict(headers or {})
        if not isinstance(body, str):
            sent.setdefault("content-type", "application/json; charset=utf-8")
            body = json.dumps(body)
        self._order(Fault("answer", times, contains, status, sent, body))

    def disturb(self, action: Action, *, times: int | None = 1, contains: str = "", after: int = 0) -> None:
        """Let requests to come "hang", "drop" the connection before the reply, or "cut" it in the middle.

        Args:
            action: one of these words.
            times: how many requests; None for all until `reset()`.
            contains: only those whose path and query hold this.
            after: bytes of the right reply's body before the cut.
        """
        self._order(Fault(action, times, contains, after=after))

    def _order(self, fault: Fault) -> None:
        _control(self.port, "POST", "/fault", dataclasses.asdict(fault))


def _control(port: int, method: str, order: str, content: object = None) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, CONTROL + order, json.dumps(content or {}))
        reply = connection.getresponse()
        answer = reply.read()
    finally:
        connection.close()
    if reply.status != 200:
        raise ValueError(f"the front refused {order}: {reply.status} {answer.decode()}")
    answered: dict[str, Any] = json.loads(answer)
    return answered


def _answers(port: int) -> bool:
    return "kinds" in _control(port, "GET", "/counts")
