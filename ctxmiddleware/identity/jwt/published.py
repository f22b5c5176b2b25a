"""The published keys of whoever issues tokens: fetched behind the answers, and kept while they cannot be fetched."""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import anyio
from anyio.lowlevel import RunVar

from ...errors import SourceUnavailable
from ...perloop import spawn
from . import keys
from .keys import Key, Opened

logger = logging.getLogger("ctxmiddleware.identity")

UNKNOWN_KEPT: Final = 1000


@dataclass(frozen=True, slots=True)
class FetchTimes:
    """When keys are fetched again.

    Args:
        refresh: seconds after which they are, behind the answers.
        cooldown: seconds in which they are fetched once at most, whoever asks for a key that is not among them.
        retry: seconds between tries while there are none.
    """

    refresh: float = 600.0
    cooldown: float = 30.0
    retry: float = 1.0


class PublishedKeys:
    """The keys of one issuer, shared by all event loops of a process; each fetches for itself, one at a time.

    Args:
        fetch: fetches the key set.
        changed: told when other keys are in force.
        times: when.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[object]],
        changed: Callable[[], None],
        times: FetchTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._changed = changed
        self._times = times or FetchTimes()
        self._clock = clock
        self._keys: Sequence[Key] = ()
        self._document: object = None
        self._tried_at = self._failed_at = -math.inf
        self._is_failing = False
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._flight: RunVar[anyio.Event | None] = RunVar("a fetch of keys", None)
        self.confirmed_at = -math.inf

    def __repr__(self) -> str:
        return f"<PublishedKeys: {len(self._keys)}>"

    def known(self, token: Opened) -> list[Key] | None:
        """Return the keys that may have signed a token, or None where they have to be fetched to know."""
        now = self._clock()
        if self._keys and now >= self.confirmed_at + self._times.refresh:
            self._begin(now)
        found = keys.fitting(token, self._keys)
        return None if not found and self._may_ask(token, now) else found

    async def fetched(self, token: Opened) -> list[Key]:
        """Return the keys that may have signed a token, fetched for it where it may be one of after the last fetch.

        Raises:
            SourceUnavailable: there are none, and they cannot be fetched.
        """
        flight = self._flight.get() or self._begin(self._clock())
        if flight is not None:
            await flight.wait()
        if not self._keys:
            raise SourceUnavailable("the keys of tokens cannot be fetched", retry_after=self._times.retry)
        found = keys.fitting(token, self._keys)
        if not found and token.key_name is not None:
            self._remember(token.key_name)
        return found

    def _may_ask(self, token: Opened, now: float) -> bool:
        if self._flight.get() is not None or not self._keys:
            return True
        if token.key_name is None or now < self._unknown.get(token.key_name, -math.inf):
            return False
        return now >= self._tried_at + self._times.cooldown

    def _remember(self, name: str) -> None:
        """Take note that nobody has published a key of that name for now."""
        self._unknown.pop(name, None)
        while len(self._unknown) >= UNKNOWN_KEPT:
            self._unknown.popitem(last=False)
        self._unknown[name] = self._clock() + 2 * self._times.cooldown

    def _begin(self, now: float) -> anyio.Event | None:
        """Begin to fetch, in a task of its own, unless somebody has just tried; return what to wait for."""
        # While there are none, each event loop fetches for itself: none can wait for another's.
        again_at = self._tried_at + self._times.cooldown if self._keys else self._failed_at + self._times.retry
        if now < again_at or self._flight.get() is not None:
            return self._flight.get()
        self._tried_at = now
        flight = anyio.Event()
        self._flight.set(flight)

        async def run() -> None:
            try:
                await self._refresh()
            finally:
                self._flight.set(None)
                flight.set()

        spawn(run)
        return flight

    async def _refresh(self) -> None:
        asked_at = self._clock()
        try:
            document = await self._fetch()
            found = keys.published(document)
        except Exception as error:  # noqa: BLE001 - whatever it is, what is known stays in force
            self._failed(error)
            return
        if self._is_failing:
            logger.info("the keys of tokens can be fetched again")
        self._is_failing = False
        is_new = document != self._document
        self._document, self._keys, self.confirmed_at = document, found, asked_at
        if is_new:
            self._changed()

    def _failed(self, error: Exception) -> None:
        self._failed_at = self._clock()
        if not self._is_failing:
            self._is_failing = True
            state = "those known stay in force" if self._keys else "nobody can be identified by a token"
            logger.error("the keys of tokens cannot be fetched: %s", state, exc_info=error)
