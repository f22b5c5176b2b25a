"""How often somebody may fail to get into the admin before it is not even looked at who he is."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Final

from .. import forking

KEPT: Final = 10_000


class Attempts:
    """Failed attempts by peer: a token bucket each (RFC 2697's, with one rate), bounded in number.

    Args:
        burst: how many may fail at once.
        every: seconds after which one more may.
        clock: monotonic seconds.
    """

    def __init__(self, burst: int = 20, every: float = 3.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._every = every
        self._clock = clock
        self.begin_anew()
        forking.register(self)

    def __len__(self) -> int:
        return len(self._full_at)

    def begin_anew(self) -> None:
        """Count anew in a forked process."""
        # Of each peer, when its bucket is full again.
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, peer: str) -> int:
        """Return the whole seconds for which a peer is not looked at; 0 where it is."""
        left = self._full_at.get(_network(peer), 0.0) - self._clock()
        return max(0, math.ceil(left - (self._burst - 1) * self._every))

    def failed(self, peer: str) -> None:
        """Take note that one has failed."""
        now, network = self._clock(), _network(peer)
        # An application may serve in several threads, each with a loop of its own.
        with self._lock:
            self._full_at[network] = max(now, self._full_at.pop(network, now)) + self._every
            while len(self._full_at) > KEPT:
                self._full_at.popitem(last=False)


def _network(peer: str) -> str:
    """Return the network that one somebody has: of IPv6 it is a /64, whose addresses he may choose himself."""
    try:
        address = ip_address(peer)
    except ValueError:
        return peer
    if not isinstance(address, IPv6Address):
        return peer
    mapped = address.ipv4_mapped
    return str(mapped) if mapped else str(int(address) >> 64)
