"""How users are held while a transaction changes what is known of them: nothing loaded meanwhile is kept."""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import anyio

from .cache.shared import HELD_SECONDS, SharedTierFailed
from .cache.tiered import TieredCache
from .errors import InvalidationFailed
from .failure_log import log_failure
from .invalidation import Invalidator

logger = logging.getLogger("ctxmiddleware.holding")

RENEWED_EVERY: Final = HELD_SECONDS / 6


class Holding:
    """All holds of a process. Each has an end of its own, in Redis too, and is renewed while the process lives.

    Args:
        cache: keeps nothing of who is held.
        invalidator: invalidates them.
        every: seconds between renewals.
    """

    def __init__(self, cache: TieredCache[Any], invalidator: Invalidator, every: float = RENEWED_EVERY) -> None:
        self._cache = cache
        self._invalidator = invalidator
        self._every = every
        self._open: dict[bytes, Sequence[str]] = {}
        self._abandoned: deque[bytes] = deque()

    def __repr__(self) -> str:
        return f"<Holding: {len(self._open)} open>"

    async def begin(self, names: Sequence[str]) -> bytes:
        """Hold names and invalidate them; return what ends that.

        Raises:
            InvalidationFailed: Redis could not be told; nothing is held.
        """
        holder = secrets.token_bytes(16)
        self._cache.settling.hold(names)
        try:
            await self._hold(names, holder)
            await self._invalidator.many(names)
        except GeneratorExit:
            # By the garbage collector: nothing can be awaited, and the hold in Redis ends by itself.
            self._cache.settling.release(names)
            raise
        except BaseException:
            await self._let_go(names, holder)
            raise
        self._open[holder] = names
        return holder

    async def end(self, holder: bytes) -> None:
        """Invalidate the names of a hold, and hold them no more.

        Raises:
            InvalidationFailed: Redis could not be told; other instances hold them until `HELD_SECONDS` are over.
        """
        names = self._open.pop(holder)
        try:
            await self._invalidator.many(names)
        finally:
            await self._let_go(names, holder)

    def abandon(self, holder: bytes) -> None:
        """Let a hold be ended by whoever renews them: its block was collected, and can await nothing."""
        self._abandoned.append(holder)

    async def keep(self) -> None:
        """Renew all holds again and again, and end those that were abandoned, until it is cancelled."""
        while True:
            await anyio.sleep(self._every)
            while self._abandoned:
                try:
                    await self.end(self._abandoned.popleft())
                except InvalidationFailed:
                    logger.debug("an abandoned hold ended without Redis, as was logged")
            for holder, names in list(self._open.items()):
                await self._renew(holder, names)

    async def _renew(self, holder: bytes, names: Sequence[str]) -> None:
        try:
            held = await self._cache.hold(names, holder)
            lost = [name for name, was_held in zip(names, held, strict=True) if not was_held]
            # What was loaded while Redis had lost the hold may be kept.
            if lost and holder in self._open:
                await self._invalidator.many(lost)
            if holder not in self._open:
                await self._cache.let_go(names, holder)
        except Exception as error:  # noqa: BLE001 - the next renewal tries again
            log_failure(logger, logging.WARNING, "a hold was not renewed in Redis", error=error)

    async def _hold(self, names: Sequence[str], holder: bytes) -> None:
        try:
            await self._cache.hold(names, holder)
        except SharedTierFailed as error:
            raise self._invalidator.failed(error) from error

    async def _let_go(self, names: Sequence[str], holder: bytes) -> None:
        self._cache.settling.release(names)
        with anyio.CancelScope(shield=True):
            try:
                await self._cache.let_go(names, holder)
            except SharedTierFailed as error:
                log_failure(logger, logging.WARNING, "a hold ends by itself, Redis not having been told", error=error)
