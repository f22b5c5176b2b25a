"""How one of the two apps is served: by uvicorn, as a process of its own with one worker."""

from __future__ import annotations

import http.client
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from examples.servers import ServerProcess
from examples.servers.ports import free_port
from examples.servers.process import Launch, inherited, tail, temporary_folder

_ROOT = Path(__file__).parents[2]
_OPTIONS = ("--host", "127.0.0.1", "--workers", "1", "--log-level", "warning", "--no-access-log")

_MARK = "x-instance"


class App:
    """A served app.

    Args:
        process: its process.
        client: what asks it, other than the load.
        admin_token: opens the cache's admin, where the app has one.
    """

    def __init__(self, process: ServerProcess, client: httpx2.Client, admin_token: str) -> None:
        self._process = process
        self._client = client
        self._admin_token = admin_token

    @property
    def port(self) -> int:
        """Its TCP port on 127.0.0.1."""
        return self._process.port

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._process.running

    def said(self) -> str:
        """Return the end of what its process has written: warnings and errors."""
        return tail(self._process.log)

    def get(self, path: str, token: str) -> httpx2.Response:
        """Ask for a page as somebody."""
        return self._ask("GET", path, token)

    def stats(self) -> dict[str, Any]:
        """Return what the cache's admin counts."""
        found: dict[str, Any] = self._ask("GET", "/api/admin/cache/stats", self._admin_token).raise_for_status().json()
        return found

    def clear(self) -> None:
        """Let the cache forget everybody."""
        self._ask("POST", "/api/admin/cache/clear", self._admin_token).raise_for_status()

    def _ask(self, method: str, path: str, token: str) -> httpx2.Response:
        return self._client.request(method, f"{self.url}{path}", headers={"Authorization": f"Bearer {token}"})


@contextmanager
def serving(
    name: str, module: str, environ: Mapping[str, str], *, choose_port: Callable[[], int] = free_port
) -> Iterator[App]:
    """Serve an app and end it.

    Args:
        name: what errors call it.
        module: where its `create_app` is.
        environ: the variables it is configured by.
        choose_port: gives a port; asked again where that was taken meanwhile.

    Raises:
        ServerFailed: it does not start.
    """
    mark = secrets.token_hex(8)

    def launch(port: int) -> Launch:
        argv = [sys.executable, "-m", "uvicorn", "--factory", f"{module}:create_app", "--port", str(port), *_OPTIONS]
        argv += ["--header", f"{_MARK}:{mark}"]
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        return Launch(argv, inherited(PYTHONPATH=path, **environ))

    with (
        temporary_folder("app") as folder,
        ServerProcess(
            name, launch, lambda port: _answers(port, mark), log=folder / "log", choose_port=choose_port
        ) as process,
        httpx2.Client(timeout=30.0) as client,
    ):
        yield App(process, client, environ["CTX_ADMIN_TOKEN"])


def _answers(port: int, mark: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health")
        # Another app, even another demo's, may have taken the port while this one was still being imported.
        return connection.getresponse().headers.get(_MARK) == mark
    except http.client.HTTPException:
        return False
    finally:
        connection.close()
