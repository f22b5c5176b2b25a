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


class TokenBucket:
    """A token bucket (RFC 2697's, with one rate).

    Args:
        burst: tokens of a full one.
        every: seconds after which it holds one more.
        clock: monotonic seconds.
    """

    def __init__(self, burst: int, every: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._every = every
        self._clock = clock
        self._full_at = 0.0

    def wait(self) -> int:
        """Return the whole seconds until it holds a token; 0 where it does."""
        return max(0, math.ceil(self._full_at - self._clock() - (self._burst - 1) * self._every))

    def take(self) -> None:
        """Take a token."""
        self._full_at = max(self._clock(), self._full_at) + self._every


class Attempts:
    """Failed attempts by peer: a token bucket each, bounded in number.

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
        return len(self._buckets)

    def begin_anew(self) -> None:
        """Count anew in a forked process."""
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, peer: str) -> int:
        """Return the whole seconds for which a peer is not looked at; 0 where it is."""
        bucket = self._buckets.get(_network(peer))
        return 0 if bucket is None else bucket.wait()

    def failed(self, peer: str) -> None:
        """Take note that one has failed."""
        network = _network(peer)
        # An application may serve in several threads, each with a loop of its own.
        with self._lock:
            bucket = self._buckets.pop(network, None) or TokenBucket(self._burst, self._every, self._clock)
            bucket.take()
            self._buckets[network] = bucket
            while len(self._buckets) > KEPT:
                self._buckets.popitem(last=False)


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
