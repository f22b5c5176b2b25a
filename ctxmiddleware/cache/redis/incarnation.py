"""Whether Redis is still the server it was, so that no generation it has lost comes back."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from ...clock import monotonic
from ...stats import REDIS, Counters
from .keys import ChannelKeys, KeySpace
from .lua.invalidation import ADMIT
from .servers.connection import Command, Send

logger = logging.getLogger("ctxmiddleware.redis")

# How long it is marked when everyone's generations were renewed: longer than any process goes without a check.
MARK_MS: Final = 3_600_000
# Much longer than generations live: one that outlives it is renewed without need.
KEPT_MS: Final = 7 * 24 * 3_600_000

_NAMES: Final = re.compile(rb"^(run_id|master_replid):([0-9A-Za-z]+)", re.MULTILINE)
_ROLE: Final = re.compile(rb"^role:(\w+)", re.MULTILINE)


@dataclass(slots=True)
class _Scope:
    """What is renewed together, and by which name the server that holds it is known here since when."""

    keys: list[str]
    known: bytes | None = None
    known_at: float = 0.0

    def admission(self, token: bytes, current: bytes, now: float) -> Command:
        since_ms = int((now - self.known_at) * 1000)
        arguments = (token, self.known or b"", current, since_ms, MARK_MS, KEPT_MS)
        return (b"EVAL", ADMIT.text, len(self.keys), *self.keys, *arguments)


class Incarnation:
    """One namespace's memory of which server holds it, kept here and in Redis.

    A replica that was promoted before the last invalidation reached it, and a server that was restarted from an old
    snapshot, hold generations that had been replaced. Both have another run id or replication id than the one that is
    kept beside the generations. Everyone's generations are renewed there before anything is read from it.

    `is_named` is whether the server has identified itself.

    Args:
        keys: of the namespace.
        counters: where it is counted that generations were renewed.
        token: makes a value never used before.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        keys: KeySpace,
        counters: Counters,
        token: Callable[[], bytes],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._space = keys
        # Of one server all buckets together; of a cluster each, since another server may have it tomorrow.
        everyone = [key for pair in keys.everyone() for key in pair]
        self._everything = _Scope([*keys.incarnation(), *_channel_of(keys.channel()), *everyone])
        self._buckets: dict[int, _Scope] = {}
        self._counters = counters
        self._token = token
        self._clock = clock
        self._warned = False
        self.is_named = True

    async def check(self, send: Send, buckets: frozenset[int] | None = None) -> None:
        """Ask a server which one it is, and renew everyone's generations where it is not the one that was known.

        Args:
            send: sends commands to it.
            buckets: of a cluster, those it has; their generations only are renewed.

        Raises:
            Exception: whatever the driver raises; what that server holds must not be read.
        """
        scopes = [self._everything] if buckets is None else [self._bucket(bucket) for bucket in sorted(buckets)]
        questions: list[Command] = [(b"INFO", "server"), (b"INFO", "replication")]
        for scope in scopes:
            questions += [(b"GET", scope.keys[0]), (b"PTTL", scope.keys[0])]
        server, replication, *kept = await send(questions)
        _refuse_replica(replication)
        current = _name(server, replication)
        self.is_named = current is not None
        if current is None:
            self._warn()
            return
        strange = []
        for scope, stored, left_ms in zip(scopes, kept[::2], kept[1::2], strict=True):
            is_long = isinstance(left_ms, int) and left_ms > KEPT_MS / 2
            if stored == current and scope.known in (None, current) and is_long:
                scope.known, scope.known_at = current, self._clock()
            else:
                strange.append(scope)
        if strange:
            await self._admit(send, current, strange)

    def _bucket(self, bucket: int) -> _Scope:
        if bucket not in self._buckets:
            keys = (
                *self._space.incarnation(bucket),
                *_channel_of(self._space.channel(bucket)),
                *self._space.everyone()[bucket],
            )
            self._buckets[bucket] = _Scope([*keys])
        return self._buckets[bucket]

    async def _admit(self, send: Send, current: bytes, scopes: Sequence[_Scope]) -> None:
        token = self._token()
        answers = await send([scope.admission(token, current, self._clock()) for scope in scopes])
        renewed = 0
        for scope, answer in zip(scopes, answers, strict=True):
            if isinstance(answer, Exception):
                raise answer
            echo, count = msgspec.convert(answer, ADMIT.reply)
            if echo != token:
                raise ConnectionError("the answer of Redis belongs to another question")
            scope.known, scope.known_at = current, self._clock()
            renewed += count
        if renewed:
            self._counters.add("renewed", REDIS)
            logger.warning(
                "Redis is not the server it was, or has been restarted: contexts it held before may have been "
                "invalidated since, and are forgotten"
            )

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "Redis does not say which server it is: allow INFO, or contexts that were invalidated come back with "
                "a failover that lost the invalidation, and with a restart from an old snapshot"
            )


def _channel_of(keys: ChannelKeys) -> tuple[str, str]:
    return keys.state, keys.listeners


def _refuse_replica(replication: object) -> None:
    # Demoted, and cut off from its master, it goes by its former name for as long, and answers with what it had.
    text = replication.encode() if isinstance(replication, str) else replication
    role = _ROLE.search(text) if isinstance(text, bytes) else None
    if role is not None and role[1] != b"master":
        raise ConnectionError("this Redis is a replica: what it holds may be older than what was invalidated")


def _name(*sections: object) -> bytes | None:
    texts = [section.encode() if isinstance(section, str) else section for section in sections]
    found = dict(pair for text in texts if isinstance(text, bytes) for pair in _NAMES.findall(text))
    return b":".join(found[word] for word in sorted(found)) or None


def age_of(mark_ms: int) -> float:
    """Return the seconds since a mark was set that has so many milliseconds left; infinite where there is none."""
    # The remaining time gives the age without any wall clock.
    return (MARK_MS - mark_ms) / 1000 if mark_ms > 0 else math.inf
