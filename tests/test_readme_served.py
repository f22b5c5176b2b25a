"""The README's examples under real servers, with clients that leave them, and a server that is asked to stop."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from websockets.sync.client import ClientConnection, connect

from examples.servers.process import Launch, ServerProcess, inherited

from .matrix import in_full
from .people import ADA, as_user
from .shown import Counting, blocks, run
from .waiting import eventually

ROOT: Final = Path(__file__).parents[1]
APP: Final = "tests.shown:app"
CLIENTS: Final = 20

SERVERS: Final[dict[str, Callable[[str], list[str]]]] = {
    "uvicorn, websockets-sansio": lambda port: ["uvicorn", APP, "--port", port, "--ws", "websockets-sansio"],
    "uvicorn, websockets": lambda port: ["uvicorn", APP, "--port", port, "--ws", "websockets"],
    "uvicorn, wsproto": lambda port: ["uvicorn", APP, "--port", port, "--ws", "wsproto"],
    "hypercorn": lambda port: ["hypercorn", APP, "--bind", f"127.0.0.1:{port}"],
    "granian": lambda port: ["granian", "--interface", "asgi", "--port", port, APP],
    "daphne": lambda port: ["daphne", "-p", port, APP],
}
PUSHED: Final = ("uvicorn, websockets-sansio", "hypercorn")


@contextmanager
def served(command: Callable[[str], list[str]], log: Path) -> Iterator[ServerProcess]:
    """Serve the example of long-lived connections."""

    def launch(port: int) -> Launch:
        return Launch([sys.executable, "-m", *command(str(port))], inherited(PYTHONPATH=str(ROOT)))

    def ready(port: int) -> bool:
        return calls(port) == 0

    with ServerProcess(command("0")[0], launch, ready, log=log, deadline=60) as process:
        yield process


def calls(port: int) -> int:
    """Return how many handlers are under way."""
    try:
        return int(httpx2.get(f"http://127.0.0.1:{port}/calls", timeout=30).text)
    except httpx2.TransportError as error:
        raise ConnectionError from error


def joined(port: int, stack: ExitStack) -> ClientConnection:
    """Return a connection that was sent what is in force."""
    client = connect(f"ws://127.0.0.1:{port}/feed", additional_headers=as_user(ADA))
    assert stack.enter_context(client).recv() == "[]"
    return client


@pytest.mark.parametrize("server", [name if name in PUSHED else in_full(name) for name in SERVERS])
def test_the_handlers_of_clients_that_went_end(server: str, tmp_path: Path) -> None:
    """Closed or cut off; and a server with a client is stopped by SIGTERM, without a traceback of the handler's."""
    with served(SERVERS[server], tmp_path / "log") as process, ExitStack() as last:
        with ExitStack() as stack:
            clients = [joined(process.port, stack) for _ in range(CLIENTS)]
            eventually(lambda: calls(process.port) == CLIENTS)
            for client in clients[::2]:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.socket.shutdown(socket.SHUT_RDWR)
        eventually(lambda: calls(process.port) == 0)
        joined(process.port, last)
        process.stop()
        assert not process.running
        log = process.log.read_text()
        assert "README.md" not in log, log


@pytest.mark.parametrize("block", [block for block in blocks("python") if "app = " in block], ids=lambda block: "")
def test_each_app_of_the_readme_is_left_by_its_clients(block: str) -> None:
    """Each of its addresses answers, and no handler stays when its client has gone."""
    app = Counting(run(block)["app"])
    inner = app.app
    with TestClient(app) as client:
        client.headers.update(as_user(ADA))
        routes = inner.routes if isinstance(inner, Starlette) else []
        for route in routes or [Route("/", lambda: None)]:
            if isinstance(route, WebSocketRoute):
                with client.websocket_connect(route.path) as websocket:
                    websocket.receive_text()
            elif isinstance(route, Route):
                assert client.get(route.path).is_success
        eventually(lambda: app.under_way == 0)
