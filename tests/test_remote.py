"""What the admin's client says of wrong addresses and broken servers, and to whom it sends the token."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from ctxmiddleware import ConfigurationError, Secret
from ctxmiddleware.cli import main
from ctxmiddleware.remote import MOST_BYTES, AdminClient, AdminRefused
from examples.servers.ports import free_port

TOKEN = "a-token-for-the-admin"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
Behave = Callable[[socket.socket, threading.Event], None]


@dataclass
class Peer:
    """A server of a test: what it was sent, and where it is."""

    port: int
    heard: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def peer(behave: Behave) -> Iterator[Peer]:
    """Run a server that hears one request and then behaves, until the block ends."""
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Peer(listener.getsockname()[1])

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(30)
                server.heard.append(connection.recv(65536))
                if not stopped.is_set():
                    behave(connection, stopped)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server
        finally:
            stopped.set()
            if not server.heard:
                with socket.create_connection(("127.0.0.1", server.port)) as poke:
                    poke.sendall(b"stop")
                    thread.join(timeout=30)
            thread.join(timeout=30)
            assert not thread.is_alive()


def says(answer: bytes) -> Behave:
    """Return a behaviour: send this and close."""

    def behave(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(answer)

    return behave


def drips(start: bytes, drop: bytes) -> Behave:
    """Return a behaviour: send the start, then drop after drop, each before any timeout of a socket."""

    def behave(connection: socket.socket, stopped: threading.Event) -> None:
        end = time.monotonic() + 10
        try:
            connection.sendall(start)
            while not stopped.wait(0.02) and time.monotonic() < end:
                connection.sendall(drop)
        except OSError:
            return

    return behave


def pours(connection: socket.socket, stopped: threading.Event) -> None:
    """Send a body that never ends, as fast as it is taken."""
    try:
        connection.sendall(OK + b"\r\n")
        while not stopped.is_set():
            connection.sendall(b" " * 65536)
    except OSError:
        return


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CTX_ADMIN_TOKEN", TOKEN)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "ftp://127.0.0.1",
        "http://",
        "http://[::1",
        "http://127.0.0.1:abc",
        "http://127.0.0.1:99999",
        "http://h/a b",
        "http://h/a\nb",
        "http://h/\x7f",
        "http://h/\u00e9",
        "http://h/\udcff",
        "http://h/?x=HUNTER2",
        "http://h/#HUNTER2",
        "http://user:HUNTER2@127.0.0.1/x",
        "http://HUNTER2@127.0.0.1/x",
        "http://user:HUNTER2@127.0.0.1:abc",
        "http://user:HUNTER2@[::1",
        "http://user:HUNTER2@h/a b",
        "ftp://user:HUNTER2@h",
        "sb_secret_HUNTER2",
    ],
)
def test_an_address_that_is_none_is_a_misuse(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends with 2 and one sentence, which holds no password."""
    assert main(["stats", "--url", url]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ctxmiddleware: the admin's address ")
    assert err.count("\n") == 1
    assert "HUNTER2" not in err


@pytest.mark.parametrize("token", ["", "x\ny", "x y", "t\u00f6ken", "\udcff"])
def test_a_token_that_cannot_travel_is_refused(token: str) -> None:
    """It is told before a library tells it, together with the token."""
    with pytest.raises(ConfigurationError, match="the admin's token is empty, or holds") as caught:
        AdminClient("http://127.0.0.1:1", Secret(token))
    assert not token or repr(token)[1:-1] not in str(caught.value)


def test_an_address_of_undecodable_bytes_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The shell hands on whatever bytes it was given; they are no traceback."""
    assert main(["invalidate", os.fsdecode(b"ada\xff@example.com"), "--url", "http://127.0.0.1:1"]) == 2
    told = capsys.readouterr().err
    assert "Identity.email is not UTF-8 text" in told
    assert "example.com" not in told


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "cut off"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"),
        (b"\x15\x03\x01\x00\x02\x02F", "does not speak HTTP"),
        (b"HTTP/1.1 two OK\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200, "does not speak HTTP"),
        (OK + b'Content-Length: 100\r\n\r\n{"a": 1', "cut off"),
        (OK + b'Transfer-Encoding: chunked\r\n\r\n64\r\n{"a": 1', "cut off"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\n{", "cut off"),
        (OK + b"\r\n", "not JSON"),
        (OK + b"\r\n" + b"\xff\xfe\xfd", "not JSON"),
        (OK + b"\r\n" + b"[" * 100_000, "not JSON"),
        (OK + b"\r\n" + b"[" * 900 + b"]" * 900, None),
        (b"HTTP/1.1 500 No\r\n\r\n" + b"[" * 100_000, "500: what answers there is not the admin"),
        (b'HTTP/1.1 500 No\r\n\r\n{"detail": ["x"]}', "500: what answers there is not the admin"),
        (b'HTTP/1.1 500 No\r\n\r\n{"detail": "a\\u001b[2Jb"}', "500: a?[2Jb"),
    ],
)
def test_a_server_that_is_broken_is_one_sentence(
    answer: bytes, told: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever it answers, the command ends with 1 and a reason, never with a traceback."""
    with peer(says(answer)) as server:
        status = main(["stats", "--url", server.url])
    out, err = capsys.readouterr()
    if told is not None:
        assert status == 1
        assert out == ""
        assert err.startswith("ctxmiddleware: ")
        assert told in err
    assert "Traceback" not in err
    assert TOKEN not in out + err
    assert b"authorization: bearer " + TOKEN.encode() in server.heard[0].lower()


@pytest.mark.parametrize(
    "behave",
    [
        drips(b"HTTP/1.1 200 OK\r\nx: ", b"y"),
        drips(OK + b"\r\n", b" "),
        drips(OK + b"Content-Length: 100000\r\n\r\n", b" "),
        drips(b"HTTP/1.1 500 No\r\n\r\n", b" "),
        drips(b"", b""),
    ],
    ids=["header", "body", "counted body", "error", "silence"],
)
def test_a_server_that_drips_holds_nobody(behave: Behave) -> None:
    """The time is for the whole question, not for each byte of the answer."""
    with peer(behave) as server, pytest.raises(AdminRefused, match=r"no whole answer within 0\.3 s"):
        AdminClient(server.url, Secret(TOKEN), timeout=0.3).stats()


def test_a_host_name_whose_lookup_hangs_delays_neither_the_error_nor_the_exit() -> None:
    """A resolver that does not answer blocks its thread for as long as it likes."""
    script = (
        "import socket, time\n"
        "from ctxmiddleware import Secret\n"
        "from ctxmiddleware.remote import AdminClient, AdminRefused\n"
        "socket.getaddrinfo = lambda *_, **__: time.sleep(3600)\n"
        "try:\n"
        f"    AdminClient('http://admin.example', Secret('{TOKEN}'), timeout=0.3).stats()\n"
        "except AdminRefused as error:\n"
        "    print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout == "the admin at 'http://admin.example' cannot be reached: no whole answer within 0.3 s\n"


def test_a_host_of_several_addresses_that_refuse_is_one_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` is two of them on most machines."""
    port = free_port()
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(AdminRefused, match="cannot be reached: ECONNREFUSED"):
        AdminClient(f"http://localhost:{port}", Secret(TOKEN)).stats()


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("http_proxy", "nonsense://proxy", "the proxy this environment names cannot be used"),
        ("SSL_CERT_FILE", "/nowhere/at/all.pem", "SSL_CERT_FILE or SSL_CERT_DIR cannot be read: ENOENT"),
    ],
)
def test_an_unusable_proxy_or_certificate_file_is_named(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong is the environment, and not the admin."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(AdminRefused, match=told):
        AdminClient("http://admin.invalid", Secret(TOKEN)).stats()


def test_a_server_without_tls_is_named() -> None:
    """The address may say https where only http is spoken."""
    with peer(says(OK + b"\r\n{}")) as server, pytest.raises(AdminRefused, match="the port does not speak TLS"):
        AdminClient(server.url.replace("http://", "https://"), Secret(TOKEN)).stats()


def test_a_body_without_end_is_given_up() -> None:
    """What an admin answers is short: a longer body is not read into memory."""
    with peer(pours) as server, pytest.raises(AdminRefused, match=f"longer than {MOST_BYTES} bytes"):
        AdminClient(server.url, Secret(TOKEN)).stats()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST.", "127.1", "2130706433", "[::ffff:127.0.0.1]"])
def test_a_proxy_is_not_given_the_token_of_a_process_here(
    host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Loopback addresses, however they are written, are asked directly."""
    with peer(says(OK + b"\r\n{}")) as proxy, peer(says(OK + b'\r\n{"it": "answered"}')) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        main(["stats", "--url", f"http://{host}:{server.port}"])
        assert proxy.heard == []
    assert TOKEN not in capsys.readouterr().err


def test_a_proxy_is_used_for_other_hosts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the environment says that a host is reached through a proxy, it is."""
    with peer(says(OK + b'\r\n{"by": "the proxy"}')) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert main(["stats", "--url", "http://admin.invalid"]) == 0
    assert "the proxy" in capsys.readouterr().out
