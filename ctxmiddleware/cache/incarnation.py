"""Whether Redis is still the server it was, so that no generation it has lost comes back."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Final

import msgspec

from ..stats import REDIS, Counters
from .connection import Send
from .keys import KeySpace
from .scripts import ADMIT

logger = logging.getLogger("ctxmiddleware.redis")

# How long it is marked when everyone's generations were renewed: longer than any process goes without a check.
MARK_MS: Final = 3_600_000
# Much longer than generations live: one that outlives it is renewed without need.
KEPT_MS: Final = 7 * 24 * 3_600_000

_NAMES: Final = re.compile(rb"^(run_id|master_replid):([0-9A-Za-z]+)", re.MULTILINE)


class Incarnation:
    """One namespace's memory of which server holds it, kept here and in Redis.

    A replica that was promoted before the last invalidation reached it, and a server that was restarted from an old
    snapshot, hold generations that had been replaced. Both have another run id or replication id than the one that is
    kept beside the generations. Everyone's generations are renewed there before anything is read from it.

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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = [*keys.incarnation(), *(key for pair in keys.everyone() for key in pair)]
        self._counters = counters
        self._token = token
        self._clock = clock
        self._known: bytes | None = None
        self._known_at = 0.0
        self._warned = False

    async def check(self, send: Send) -> None:
        """Ask a server which one it is, and renew everyone's generations where it is not the one that was known.

        Raises:
            Exception: whatever the driver raises; what that server holds must not be read.
        """
        key = self._keys[0]
        server, replication, stored, left_ms = await send(
            [(b"INFO", "server"), (b"INFO", "replication"), (b"GET", key), (b"PTTL", key)]
        )
        current = _name(server, replication)
        if current is None:
            self._warn()
        elif (
            stored == current and self._known in (None, current) and isinstance(left_ms, int) and left_ms > KEPT_MS / 2
        ):
            self._is(current)
        else:
            await self._admit(send, current)

    async def _admit(self, send: Send, current: bytes) -> None:
        token = self._token()
        since_ms = int((self._clock() - self._known_at) * 1000)
        arguments = (token, self._known or b"", current, since_ms, MARK_MS, KEPT_MS)
        (answer,) = await send([(b"EVAL", ADMIT.text, len(self._keys), *self._keys, *arguments)])
        if isinstance(answer, Exception):
            raise answer
        echo, renewed = msgspec.convert(answer, ADMIT.reply)
        if echo != token:
            raise ConnectionError("the answer of Redis belongs to another question")
        self._is(current)
        if renewed:
            self._counters.add("renewed", REDIS)
            logger.warning(
                "Redis is not the server it was, or has been restarted: contexts it held before may have been "
                "invalidated since, and are forgotten"
            )

    def _is(self, current: bytes) -> None:
        self._known, self._known_at = current, self._clock()

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "Redis does not say which server it is: allow INFO, or contexts that were invalidated come back with "
                "a failover that lost the invalidation, and with a restart from an old snapshot"
            )


def _name(*sections: object) -> bytes | None:
    texts = [section.encode() if isinstance(section, str) else section for section in sections]
    found = dict(pair for text in texts if isinstance(text, bytes) for pair in _NAMES.findall(text))
    return b":".join(found[word] for word in sorted(found)) or None
