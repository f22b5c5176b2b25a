"""The published keys of whoever issues tokens: fetched behind the answers, and kept while they cannot be fetched."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio
from anyio.lowlevel import RunVar

from ... import forking
from ...failure_log import log_failure
from ...perloop import spawn
from ..credential import KeysUnavailable
from . import keys
from .keys import Key, Opened

logger = logging.getLogger("ctxmiddleware.identity")


@dataclass(frozen=True, slots=True)
class FetchTimes:
    """When keys are fetched again.

    Args:
        refresh: seconds after which they are, behind the answers.
        cooldown: seconds in which they are fetched once at most, whoever asks for a key that is not among them.
        retry: seconds between tries while there are none.
        wait: seconds after which a request waits for them, so that a key which was withdrawn while nobody came lets
            nobody in. While they cannot be fetched none waits a second time.
        keep: seconds after which they are in force no longer, though they cannot be fetched.
    """

    refresh: float = 600.0
    cooldown: float = 30.0
    retry: float = 1.0
    wait: float = 900.0
    keep: float = 86_400.0


class PublishedKeys:
    """The keys of one issuer, shared by all event loops of a process; each fetches for itself, one at a time.

    Args:
        fetch: fetches the key set.
        changed: told when other keys are in force.
        times: when.
        clock: monotonic seconds.
        is_of_any_issuer: whether tokens of other issuers are checked with them too, for none is stated.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[object]],
        changed: Callable[[], None],
        times: FetchTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        is_of_any_issuer: bool = False,
    ) -> None:
        self._is_of_any_issuer = is_of_any_issuer
        self._fetch = fetch
        self._changed = changed
        self._times = times or FetchTimes()
        self._clock = clock
        self._flight: RunVar[anyio.Event | None] = RunVar("a fetch of keys", None)
        self.begin_anew()
        forking.register(self)

    def __repr__(self) -> str:
        return f"<PublishedKeys: {len(self._keys)}>"

    def begin_anew(self) -> None:
        """Fetch the keys anew in a forked process."""
        self._keys: Sequence[Key] = ()
        self._document: object = None
        self._tried_at = self._failed_at = -math.inf
        self._is_failing = False
        self._level = logging.ERROR
        self.confirmed_at = -math.inf

    def known(self, token: Opened) -> list[Key] | None:
        """Return the keys that may have signed a token, or None where they have to be fetched to know.

        Raises:
            SourceUnavailable: it may be a new one, and it is too soon to try once more to fetch it.
        """
        now = self._clock()
        if self._keys and now >= self.confirmed_at + self._times.refresh:
            self._begin(now)
        found = keys.fitting(token, self._keys)
        if found:
            return found if self._are_in_force(now) else None
        if self._may_ask(now):
            return None
        # In an outage no fetch shows that a token is not of a new key, whatever an earlier one has said.
        if self._is_failing:
            raise self.unavailable()
        return found

    def _are_in_force(self, now: float) -> bool:
        age = now - self.confirmed_at
        # In an outage one request has waited already, and found that they cannot be fetched.
        is_down = self._is_failing and now < self._failed_at + self._times.wait
        return age < self._times.wait or (is_down and age < self._times.keep)

    async def fetched(self, token: Opened) -> list[Key]:
        """Return the keys that may have signed a token, fetched for it where it may be one of after the last fetch.

        Raises:
            SourceUnavailable: they cannot be fetched, and none that is known and in force may have signed it.
        """
        flight = self._flight.get() or self._begin(self._clock())
        if flight is not None:
            await flight.wait()
        found = keys.fitting(token, self._keys)
        if found and self._clock() < self.confirmed_at + self._times.keep:
            return found
        # Whoever has a token of a new key is not made anonymous because that cannot be fetched.
        if found or not self._keys or self._is_failing:
            raise self.unavailable()
        return found

    def may_be_replaced(self) -> bool:
        """Return whether another fetch is due for a signature that is wrong by the key of its name.

        A key may be replaced under its name, or have none. All such tokens together get one fetch in each cool-down.

        Raises:
            SourceUnavailable: the last fetch failed, and it is too soon for another one.
        """
        if self._flight.get() is not None or self._clock() >= self._tried_at + self._times.cooldown:
            return True
        if self._is_failing:
            raise self.unavailable()
        return False

    @property
    def is_failing(self) -> bool:
        """Whether the last fetch failed."""
        return self._is_failing

    def unavailable(self) -> KeysUnavailable:
        """Return the error for a token of which no key that can be had says whether it is good."""
        again_in = self._times.cooldown if self._keys else self._times.retry
        return KeysUnavailable(again_in, is_undecided=self._is_of_any_issuer)

    def _may_ask(self, now: float) -> bool:
        return self._flight.get() is not None or not self._keys or now >= self._tried_at + self._times.cooldown

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
            logger.log(self._level, "the keys of tokens can be fetched again")
        self._is_failing = False
        is_new = document != self._document
        self._document, self._keys, self.confirmed_at = document, found, asked_at
        if is_new:
            self._changed()

    def _failed(self, error: Exception) -> None:
        self._failed_at = self._clock()
        if not self._is_failing:
            self._is_failing = True
            self._level = logging.WARNING if self._keys else logging.ERROR
            state = "those known stay in force" if self._keys else "no user can be identified by a token"
            log_failure(logger, self._level, "the keys of tokens cannot be fetched and %s", state, error=error)
