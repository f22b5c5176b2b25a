"""The middleware under real servers: their lifespans, their ways of stopping, their websockets."""

from __future__ import annotations

import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx2
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from examples.servers.failure import ServerFailed
from examples.servers.process import Launch, ServerProcess, inherited

from ..matrix import in_full, some
from ..people import ADA, DOWN, NOBODY, TOKEN, as_user
from ..waiting import eventually

ROOT = Path(__file__).parent.parent.parent
Serve = Callable[..., AbstractContextManager[ServerProcess]]


def uvicorn(app: str, port: int, options: tuple[str, ...]) -> list[str]:
    """Return uvicorn's command line."""
    return ["uvicorn", f"tests.frameworks.served:{app}", "--host", "127.0.0.1", "--port", str(port), *options]


def hypercorn(app: str, port: int, options: tuple[str, ...]) -> list[str]:
    """Return hypercorn's command line."""
    return ["hypercorn", f"tests.frameworks.served:{app}", "--bind", f"127.0.0.1:{port}", *options]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Starts a server with one of the apps."""

    @contextmanager
    def start(
        app: str, *options: str, server: Callable[..., list[str]] = uvicorn, stop: int = signal.SIGINT
    ) -> Iterator[ServerProcess]:
        def launch(port: int) -> Launch:
            return Launch([sys.executable, "-m", *server(app, port, options)], inherited(PYTHONPATH=str(ROOT)))

        def ready(port: int) -> bool:
            try:
                return httpx2.get(f"http://127.0.0.1:{port}/").status_code > 0
            except httpx2.TransportError as error:
                raise ConnectionError from error

        with ServerProcess(server.__name__, launch, ready, log=tmp_path / "log", stop_signal=stop) as process:
            yield process

    return start


def get(process: ServerProcess, path: str, user: str | None = None, **headers: str) -> httpx2.Response:
    """Ask a server."""
    return httpx2.get(f"http://127.0.0.1:{process.port}{path}", headers=as_user(user) | headers, timeout=30)


def events(process: ServerProcess) -> list[str]:
    """Return what the app has said so far."""
    return [line for line in process.log.read_text().splitlines() if line.startswith(("APP", "PLUGIN"))]


BOTH = pytest.mark.parametrize("server", [uvicorn, hypercorn])


@BOTH
@pytest.mark.parametrize("stop", [in_full(signal.SIGINT, name="Ctrl-C"), pytest.param(signal.SIGTERM, id="SIGTERM")])
def test_the_plugin_lives_as_long_as_the_server(serve: Serve, server: Callable[..., list[str]], stop: int) -> None:
    """It is opened before the app starts, serves, and is closed when the server is asked to stop."""
    with serve("app", server=server, stop=stop) as process:
        assert get(process, "/me", ADA).json() == ADA
        assert get(process, "/stream", ADA).text.split() == [ADA] * 3
        assert get(process, "/me").status_code == 401
        assert get(process, "/me", NOBODY).status_code == 403
        refused = get(process, "/me", DOWN)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "8")
        stats = get(process, "/api/admin/cache/stats", DOWN, authorization=f"Bearer {TOKEN}")
        assert stats.json()["requests"]["unavailable"] == 1
        assert events(process) == ["PLUGIN OPEN", "APP STARTED"]
        process.stop()
        assert events(process) == ["PLUGIN OPEN", "APP STARTED", "APP STOPPED", "PLUGIN CLOSED"]
        assert "Traceback" not in process.log.read_text()


@BOTH
def test_an_app_without_a_lifespan_gets_the_plugin_opened_and_closed(
    serve: Serve, server: Callable[..., list[str]]
) -> None:
    """The server is answered for the app, which goes on serving."""
    with serve("bare", server=server) as process:
        assert events(process) == ["PLUGIN OPEN"]
        assert get(process, "/", ADA).json() == ADA
        process.stop()
        assert events(process) == ["PLUGIN OPEN", "PLUGIN CLOSED"]
        assert "taken as an app without a lifespan" in process.log.read_text()


@pytest.mark.parametrize("app", some(["app", "bare"], 1))
def test_uvicorn_that_insists_on_a_lifespan_gets_one(serve: Serve, app: str) -> None:
    """`--lifespan on` works with every app, with and without a lifespan of its own."""
    with serve(app, "--lifespan", "on") as process:
        assert events(process)[0] == "PLUGIN OPEN"
        process.stop()
        assert events(process)[-1] == "PLUGIN CLOSED"


def test_uvicorn_without_a_lifespan_opens_at_the_first_request(serve: Serve) -> None:
    """`--lifespan off` opens the plugin lazily, and the loop's end closes it."""
    with serve("bare", "--lifespan", "off") as process:
        assert events(process) == []
        assert get(process, "/", ADA).json() == ADA
        assert events(process) == ["PLUGIN OPEN"]
        process.stop()
        assert events(process) == ["PLUGIN OPEN", "PLUGIN CLOSED"]
        assert "Traceback" not in process.log.read_text()


@BOTH
@pytest.mark.parametrize(("app", "why"), [("never", "no route to the source"), ("misconfigured", "CTX_TTL")])
def test_a_start_up_that_fails_ends_the_server(
    serve: Serve, server: Callable[..., list[str]], app: str, why: str
) -> None:
    """A server does not go on without the plugin, and its log says why; the app is never started."""
    with pytest.raises(ServerFailed, match=why) as caught, serve(app, server=server):
        raise AssertionError("it serves")
    assert "APP STARTED" not in str(caught.value)


def test_a_misconfigured_app_without_a_lifespan_refuses_everything(serve: Serve) -> None:
    """Where nothing runs a lifespan, every request is a 500, and the log names the variable."""
    with serve("misconfigured", "--lifespan", "off") as process:
        assert get(process, "/me", ADA).status_code == 500
        assert get(process, "/api/admin/cache/stats", authorization=f"Bearer {TOKEN}").status_code == 500
        assert "CTX_TTL" in process.log.read_text()


@pytest.mark.parametrize("implementation", some(["websockets-sansio", "websockets", "wsproto"], 1))
def test_websockets_are_served_and_denied_by_uvicorn(serve: Serve, implementation: str) -> None:
    """A known user's websocket opens; another is denied with the status and the headers of its case."""
    with serve("app", "--ws", implementation) as process:
        _serves_and_denies(process)


def test_websockets_are_served_and_denied_by_hypercorn(serve: Serve) -> None:
    """Another server, another way of denying, the same statuses."""
    with serve("app", server=hypercorn) as process:
        _serves_and_denies(process)


def _serves_and_denies(process: ServerProcess) -> None:
    url = f"ws://127.0.0.1:{process.port}/live"
    with connect(url, additional_headers=as_user(ADA)) as served:
        for word in ("one", "two"):
            served.send(word)
            assert served.recv() == f"{ADA} {word}"
    for user, status, header in ((None, 401, "www-authenticate"), (NOBODY, 403, None), (DOWN, 503, "retry-after")):
        with pytest.raises(InvalidStatus) as caught:
            connect(url, additional_headers=as_user(user))
        response = caught.value.response
        assert response.status_code == status
        assert header is None or header in response.headers
    assert "Traceback" not in process.log.read_text()


@pytest.mark.parametrize(
    ("server", "options"),
    [
        in_full(uvicorn, ("--ws", "websockets"), name="websockets"),
        pytest.param(uvicorn, ("--ws", "websockets-sansio"), id="websockets-sansio"),
        in_full(uvicorn, ("--ws", "wsproto"), name="wsproto"),
        pytest.param(hypercorn, (), id="hypercorn"),
    ],
)
def test_a_websocket_without_the_extension_is_refused_by_a_close(
    serve: Serve, server: Callable[..., list[str]], options: tuple[str, ...]
) -> None:
    """A host that offers no denial is told to close, which its client sees as a refused handshake."""
    with serve("old", *options, server=server) as process:
        for user in (None, NOBODY, DOWN):
            with pytest.raises(InvalidStatus) as caught:
                connect(f"ws://127.0.0.1:{process.port}/live", additional_headers=as_user(user))
            assert caught.value.response.status_code == 403
        assert "Traceback" not in process.log.read_text()


def test_a_client_that_goes_away_harms_nobody(serve: Serve) -> None:
    """Connections cut in the middle of a request or a websocket leave a server that serves on and stops well."""
    with serve("app") as process:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", process.port)) as cut:
                cut.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                cut.sendall(f"GET /stream HTTP/1.1\r\nhost: x\r\nx-user: {ADA}\r\n\r\n".encode())
            with connect(f"ws://127.0.0.1:{process.port}/live", additional_headers=as_user(ADA)) as left:
                left.socket.shutdown(socket.SHUT_RDWR)
        eventually(lambda: get(process, "/me", ADA).json() == ADA)
        process.stop()
        assert events(process)[-1] == "PLUGIN CLOSED"


@BOTH
def test_a_stream_of_changes_ends_with_its_client(serve: Serve, server: Callable[..., list[str]]) -> None:
    """And does not hold up a server that is asked to stop, as the README says it is to be started."""
    options = ("--timeout-graceful-shutdown", "1") if server is uvicorn else ("--graceful-timeout", "1")
    with serve("app", *options, server=server, stop=signal.SIGTERM) as process:
        url = f"http://127.0.0.1:{process.port}/changes"
        with httpx2.stream("GET", url, headers=as_user(ADA), timeout=30) as response:
            assert next(response.iter_raw()) == f"data: {ADA}\n\n".encode()
        eventually(lambda: events(process)[-2:] == ["APP STREAMS", "APP STREAMED"])
        with httpx2.stream("GET", url, headers=as_user(ADA), timeout=30) as response:
            chunks = response.iter_raw()
            assert next(chunks) == f"data: {ADA}\n\n".encode()
            process.stop()
        assert not process.running
