"""What the machine knows of users, and of what an instance was told: the words of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ctxmiddleware.cache.base import Key
from ctxmiddleware.cache.names import digest_of
from ctxmiddleware.cache.policy import CachePolicy
from ctxmiddleware.cache.shared import Reach
from ctxmiddleware.principal import Identity

# Two addresses, and a subject of the same text as one of them: each in two tenants.
USERS = Identity("ada"), Identity("bob"), Identity(subject="ada")
NAMES = tuple(user.cache_key[1] for user in USERS)
KEYS: tuple[Key, ...] = tuple((tenant, name) for tenant in ("", "acme") for name in NAMES)
# The source gives contexts of this user a short time.
SHORT_LIVED: Key = ("acme", NAMES[2])
NAMED = {digest_of(name): name for name in (*NAMES, "nobody")}
POLICY = CachePolicy(
    ttl=10, negative_ttl=3, jitter=0.1, refresh_ahead=0.8, stale_for=6, untrusted_ttl=2, stale_untrusted_for=4,
    settle=2, soft_timeout=0.5, load_timeout=5, max_loads=3, max_batches=1, max_users=4, max_unknown=2,
)  # fmt: skip


class Violation(AssertionError):
    """A promise was broken."""


@dataclass
class Invalidation:
    """One that returned well: nothing older than `version` may be served afterwards, but for what its report says."""

    instance: int
    name: str | None
    version: int
    began_at: float
    ended_at: float
    reach: Reach
    redis_was_down: bool = False

    @property
    def settles_within(self) -> float:
        """Seconds after which what was committed within `settle` is served."""
        return POLICY.settle * (2 if self.name is None else 1)

    def was_heard_by(self, me: str) -> bool:
        """Return whether an instance remembers it by itself."""
        return me == self.reach.me or me in dict(self.reach.confirmed)

    def stops_within(self, me: str) -> float:
        """Return the seconds within which, by its report, an instance stops serving what is older."""
        silent = dict(self.reach.silent)
        if me in silent:
            return silent[me]
        is_listed = me in dict(self.reach.confirmed) or me == self.reach.me
        return self.reach.unlisted[0] if self.reach.unlisted and not is_listed else 0.0


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
