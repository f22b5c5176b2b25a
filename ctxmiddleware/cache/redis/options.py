"""How Redis is queried: times and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...option import Count, Seconds, check_options, documented

# Shorter times would be zero in Redis' milliseconds, or keep a loop busy without end.
LEAST_SECONDS: Final = 0.001


@documented
@dataclass(frozen=True, slots=True)
class RedisOptions:
    """How Redis is queried."""

    timeout: float = Seconds(
        "Seconds for connecting, and for one reply; both together never take more than twice that.",
        least=LEAST_SECONDS,
        variable=None,
    ).default(0.25)
    pool_size: int = Count("Connections per event loop.", least=1, variable=None).default(20)
    pool_wait: float = Seconds(
        "Seconds a look-up waits for a free connection before it goes to the source instead.",
        least=LEAST_SECONDS,
        variable=None,
    ).default(0.05)
    probe_every: float = Seconds(
        "Seconds between background probes while Redis is down.", least=LEAST_SECONDS, variable=None
    ).default(0.5)
    check_every: float = Seconds(
        "Seconds between checks that an open connection still leads to the server it led to.",
        least=LEAST_SECONDS,
        variable=None,
    ).default(5.0)
    fault_threshold: int = Count(
        "Faults in a row after which only the background probe queries Redis.", least=1, variable=None
    ).default(3)
    invalidation_wait: float = Seconds(
        "Seconds an invalidation waits for a free connection, and again for Redis to accept it.",
        least=LEAST_SECONDS,
        variable=None,
    ).default(1.0)
    confirm_timeout: float = Seconds(
        "Seconds an invalidation waits for the other instances to confirm it.", least=LEAST_SECONDS, variable=None
    ).default(0.25)
    replicas: int = Count(
        "Replicas of Redis, in a cluster of each master, that must have an invalidation before it is done (WAIT): with "
        "0 the fleet forgets one that a master did not replicate before it died, until it notices the new master.",
        least=0,
    ).default(0)
    lease: float = Seconds(
        "Seconds after which the lease of a load ends if its owner has died; a live owner keeps it.",
        least=LEAST_SECONDS,
        variable=None,
    ).default(0.75)

    def __post_init__(self) -> None:
        check_options(self)
