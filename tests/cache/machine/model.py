"""What the machine knows of users, and of what an instance was told: the words of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ctxmiddleware.cache.base import Key
from ctxmiddleware.cache.names import digest_of
from ctxmiddleware.cache.policy import CachePolicy

KEYS: tuple[Key, ...] = tuple((partition, name) for partition in ("", "acme") for name in ("ada", "bob", "cy"))
NAMED = {digest_of(name): name for name in ("ada", "bob", "cy", "nobody")}
POLICY = CachePolicy(
    ttl=10, negative_ttl=3, jitter=0.1, refresh_ahead=0.8, stale_for=6, untrusted_ttl=2, soft_timeout=0.5,
    load_timeout=5, max_loads=3, max_batches=1, max_users=4, max_unknown=2,
)  # fmt: skip


class Violation(AssertionError):
    """A promise was broken."""


@dataclass
class Invalidation:
    """One that returned well: nothing older than `version` may be served afterwards."""

    instance: int
    name: str | None
    version: int
    ended_at: float
    redis_was_down: bool = False


class Asked(NamedTuple):
    """A question: its virtual second, how many invalidations had returned by then, and what its instance knew.

    `learned` is the version of which a look had told it, and `told` how many times it was told something.
    """

    at: float
    done: int
    learned: int
    told: int


@dataclass(frozen=True)
class Bound:
    """What an instance was told: from then on it must not serve what is older.

    Args:
        name: of whom; None for everybody.
        version: the oldest that may be served.
        everywhere: whether by whatever road; else by memory alone, which has to ask again.
    """

    name: str | None
    version: int
    everywhere: bool
