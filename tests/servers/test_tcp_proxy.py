"""Whether the network between client and server fails in each way it is told to."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from examples.servers import TcpProxy, Valkey
from tests.waiting import PATIENCE, eventually


@pytest.fixture
def proxy(valkey: Valkey) -> Iterator[TcpProxy]:
    """A proxy before the shared Valkey."""
    with TcpProxy.start("127.0.0.1", valkey.port) as proxy:
        yield proxy


def connected(proxy: TcpProxy) -> socket.socket:
    """Return a new connection through the proxy."""
    return socket.create_connection((proxy.host, proxy.port), timeout=PATIENCE)


def pinged(connection: socket.socket) -> bytes:
    """Return the server's answer to a ping."""
    connection.sendall(b"PING\r\n")
    return connection.recv(100)


def test_passes_everything_on(proxy: TcpProxy) -> None:
    """Without a fault a client does not notice the proxy, and the proxy counts it."""
    with connected(proxy) as connection:
        assert pinged(connection) == b"+PONG\r\n"
        assert proxy.connections == 1
    eventually(lambda: proxy.connections == 0)
    assert proxy.accepted == 1


def test_passes_a_server_s_end_on(proxy: TcpProxy) -> None:
    """A connection that the server closes in order ends in order for the client."""
    with connected(proxy) as connection:
        connection.sendall(b"QUIT\r\n")
        assert connection.recv(100) == b"+OK\r\n"
        assert connection.recv(100) == b""


def test_passes_a_half_closed_connection_on(proxy: TcpProxy) -> None:
    """A client that has said all it has to say still gets its answer."""
    with connected(proxy) as connection:
        connection.sendall(b"PING\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b"+PONG\r\n"


def test_delays_both_ways(proxy: TcpProxy) -> None:
    """A delay is paid on the way there and on the way back."""
    with connected(proxy) as connection:
        proxy.delay(0.1)
        started = time.monotonic()
        assert pinged(connection) == b"+PONG\r\n"
        assert time.monotonic() - started >= 0.2


def test_swallows_and_recovers(proxy: TcpProxy) -> None:
    """A black hole accepts connections and gives nothing back, until it is closed."""
    with connected(proxy) as old:
        proxy.black_hole()
        old.settimeout(0.2)
        with pytest.raises(TimeoutError):
            pinged(old)
        with connected(proxy) as new:
            new.settimeout(0.2)
            with pytest.raises(TimeoutError):
                pinged(new)
    eventually(lambda: proxy.connections == 0)
    proxy.pass_through()
    with connected(proxy) as connection:
        assert pinged(connection) == b"+PONG\r\n"


def test_resets_open_and_new_connections(proxy: TcpProxy) -> None:
    """A reset is felt at once on connections that are open and on those to come."""
    with connected(proxy) as old:
        pinged(old)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            old.recv(100)
    with pytest.raises((ConnectionResetError, BrokenPipeError)), connected(proxy) as new:
        pinged(new)


def test_refuses_and_comes_back_on_its_port(proxy: TcpProxy) -> None:
    """A machine without server refuses, and after it has come back it serves at the same address."""
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connected(proxy)
    proxy.pass_through()
    with connected(proxy) as connection:
        assert pinged(connection) == b"+PONG\r\n"


def test_cuts_in_the_middle_of_a_reply(proxy: TcpProxy) -> None:
    """The client gets so many bytes of the reply and then a reset."""
    proxy.cut(3)
    with connected(proxy) as connection:
        assert pinged(connection) == b"+PO"
        with pytest.raises(ConnectionResetError):
            connection.recv(100)


def test_drops_once(proxy: TcpProxy) -> None:
    """Dropped connections are reset, and new ones work."""
    with connected(proxy) as old:
        pinged(old)
        proxy.drop()
        with pytest.raises(ConnectionResetError):
            old.recv(100)
    with connected(proxy) as connection:
        assert pinged(connection) == b"+PONG\r\n"


def test_without_a_server_behind_it_resets(valkey: Valkey) -> None:
    """Where nobody listens behind the proxy, its clients are told."""
    with Valkey.start() as gone, TcpProxy.start("127.0.0.1", gone.port) as proxy:
        gone.kill()
        with pytest.raises((ConnectionResetError, BrokenPipeError)), connected(proxy) as connection:
            pinged(connection)
