"""Which port a server is given."""

from __future__ import annotations

import random
import socket
import threading

# Below the ranges that systems take client ports from: no connection then sits on the port of a server that restarts.
_RANGE = range(18_000, 32_000)
# Apart from those of the servers: a proxy that refuses holds no port, and must get the same one again.
PROXIES = range(10_000, 15_000)
# A node of a cluster listens on a second port for the other nodes, by default so much above its own.
CLUSTER_BUS = 10_000
_NODES = range(15_000, 18_000)
_given: set[int] = set()
_lock = threading.Lock()


def free_port(among: range = _RANGE) -> int:
    """Return a TCP port of the loopback interface that is free now and was not given by this process before."""
    with _lock:
        while True:
            port = random.choice(among)  # noqa: S311 - nothing secret about it
            if port not in _given and bindable(port):
                _given.add(port)
                return port


def free_node_port() -> int:
    """Return a free port for a node of a cluster, whose port for the other nodes is free as well."""
    while True:
        port = free_port(_NODES)
        bus = port + CLUSTER_BUS
        with _lock:
            if bus not in _given and bindable(bus):
                _given.add(bus)
                return port


def bindable(port: int) -> bool:
    """Answer whether a server could listen on this port of the loopback interface now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
