"""One load per user in the whole fleet: who has the lease of a load, and how it is kept while the load goes on."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import anyio

from ...collectable import CollectableLock
from ...failure_log import log_failure
from ..base import Key
from ..shared import AGAIN, ASK, Claim, Claiming
from .keys import KeySpace
from .lua.leases import CLAIM, PROLONG, RELEASE
from .lua.script import Script
from .order import MAX_USERS, Errand

logger = logging.getLogger("ctxmiddleware.redis")

# So often a lease is prolonged before it would end: one prolongation may be lost.
TRIES: Final = 3

Ask = Callable[[Script[Any], Sequence[Errand], tuple[int, ...]], Awaitable[Sequence[Any]]]
"""Carries out a script for some users, and returns their answers; None in the place of what nobody knows."""


@dataclass(frozen=True, slots=True)
class _Held:
    key: Key
    is_over: Callable[[], bool]


class Leases:
    """The leases this process holds: prolonged while their loads go on, given back where those ended without a store.

    Args:
        ask: carries out scripts in the running event loop.
        keys: of the namespace.
        me: returns the name under which this instance is woken.
        wake: wakes instances that wait for a key.
        token: makes a value never used before.
        lasts: seconds after which a lease ends that is not prolonged.
    """

    def __init__(
        self,
        ask: Ask,
        keys: KeySpace,
        *,
        me: Callable[[], str],
        wake: Callable[[Sequence[tuple[Key, Sequence[bytes]]]], None],
        token: Callable[[], bytes],
        lasts: float,
    ) -> None:
        self._ask = ask
        self._keys = keys
        self._me = me
        self._wake = wake
        self._token = token
        self._lasts = lasts
        self._lease_ms = int(lasts * 1000)
        self._lock = CollectableLock()
        self._held: dict[bytes, _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    async def claim(self, wanted: Sequence[Claiming]) -> list[Claim]:
        """Ask for the lease of each load."""
        owners = [self._token() for _ in wanted]
        errands = [self._claiming(each, owner) for each, owner in zip(wanted, owners, strict=True)]
        taken: Sequence[int | None] = [None] * len(wanted)
        try:
            taken = await self._ask(CLAIM, errands, (self._lease_ms,))
        finally:
            # Where the answer is lost the lease may be there all the same: it is given back when the load is over.
            self._lock.soon(partial(self._hold, wanted, owners, taken))
        return [_claim(owner, left_ms) for owner, left_ms in zip(owners, taken, strict=True)]

    def _hold(self, wanted: Sequence[Claiming], owners: Sequence[bytes], taken: Sequence[int | None]) -> None:
        for each, owner, left_ms in zip(wanted, owners, taken, strict=True):
            if not left_ms:  # 0, or unknown
                self._held[owner] = _Held(each.key, each.is_over)

    def _claiming(self, wanted: Claiming, owner: bytes) -> Errand:
        keys = self._keys.of(wanted.key)
        return Errand((*keys[:3], keys.lease), (*wanted.fence, wanted.left_ms, owner, self._me().encode()))

    def forget(self, owners: Sequence[bytes]) -> None:
        """Hold leases no more: a store has ended them, or they are another's."""
        with self._lock:
            for owner in owners:
                self._held.pop(owner, None)

    async def release(self, owners: Sequence[bytes]) -> None:
        """Give leases back whose loads brought nothing, and wake whoever waits for them."""
        with self._lock:
            held = [(owner, self._held.pop(owner)) for owner in owners if owner in self._held]
        if held:
            answers = await self._ask(RELEASE, [self._errand(owner, each) for owner, each in held], ())
            self._wake([(each.key, found) for (_, each), found in zip(held, answers, strict=True) if found])

    async def keep(self) -> None:
        """Prolong what is held, until it is cancelled."""
        while True:
            await anyio.sleep(self._lasts / TRIES)
            try:
                await self._keep_once()
            except Exception as error:  # noqa: BLE001 - it is logged
                # The event loop's way to Redis must not end with it: a lease that is not prolonged ends by itself.
                log_failure(logger, logging.ERROR, "leases could not be prolonged", error=error)

    async def _keep_once(self) -> None:
        with self._lock:
            held = list(self._held.items())
        await self.release([owner for owner, each in held if each.is_over()])
        going_on = [(owner, each) for owner, each in held if not each.is_over()]
        for start in range(0, len(going_on), MAX_USERS):
            some = going_on[start : start + MAX_USERS]
            await self._ask(PROLONG, [self._errand(owner, each) for owner, each in some], (self._lease_ms,))

    def _errand(self, owner: bytes, held: _Held) -> Errand:
        return Errand((self._keys.of(held.key).lease,), (owner,))


def _claim(owner: bytes, left_ms: int | None) -> Claim:
    if left_ms is None:
        return ASK
    if left_ms < 0:
        return AGAIN
    return Claim(wait=left_ms / 1000) if left_ms else Claim(owner)
