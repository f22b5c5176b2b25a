"""How Redis is asked: times and sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ...errors import ConfigurationError

# Shorter times would be nought in Redis' milliseconds, or busy without end.
LEAST_SECONDS: Final = 0.001


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """How Redis is asked.

    Args:
        timeout: seconds for connecting and for one answer; both together never take more than twice that.
        pool_size: connections per event loop.
        pool_wait: seconds a look-up waits for a connection that does not get free before it goes to the source instead.
        probe_every: seconds between background probes while Redis is down.
        check_every: seconds between looks at whether an open connection still leads to the server it led to.
        fault_threshold: faults in a row after which only the background probe asks Redis.
        invalidation_wait: seconds an invalidation waits for a free connection, and again for Redis to take it.
        confirm_timeout: seconds it waits for the other instances to confirm it.
        replicas: replicas that must have an invalidation before it is done (WAIT): with none, one that its master
            did not pass on before it died is forgotten by the fleet until another server is noticed. Of a cluster, of
            each master.
        lease: seconds after which the lease of a load ends whose owner has died; a live one keeps it.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    timeout: float = 0.25
    pool_size: int = 20
    pool_wait: float = 0.05
    probe_every: float = 0.5
    check_every: float = 5.0
    fault_threshold: int = 3
    invalidation_wait: float = 1.0
    confirm_timeout: float = 0.25
    replicas: int = 0
    lease: float = 0.75

    def __post_init__(self) -> None:
        times = ("timeout", "pool_wait", "probe_every", "check_every", "invalidation_wait", "confirm_timeout", "lease")
        faults = [
            f"RedisOptions.{name} was {value!r}, must be a number of seconds, {LEAST_SECONDS:g} or more"
            for name in times
            if not _is_number(value := getattr(self, name), int, float) or not LEAST_SECONDS <= value < math.inf
        ]
        faults += [
            f"RedisOptions.{name} was {value!r}, must be a whole number, {least} or more"
            for name, least in (("pool_size", 1), ("fault_threshold", 1), ("replicas", 0))
            if not _is_number(value := getattr(self, name), int) or value < least
        ]
        if faults:
            raise ConfigurationError(*faults)


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)
