"""When to stop asking something that fails, and when to try again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Literal, TypeAlias

from . import forking
from .collectable import CollectableLock

Ticket: TypeAlias = int
"""By which a call's end is told from that of a call of before."""

State: TypeAlias = Literal["closed", "open", "half-open"]

Health: TypeAlias = Literal["unknown", "ok", "failing", "probing"]
"""A backend as its last call has shown it: `unknown` before the first, `probing` where the next call is a trial."""

# Whose calls failed is known of so many a second; those of more are counted as if each were another's.
_MOST_KNOWN = 1000


class Breaker:
    """Opens after a number of faults in a row and closes on the first success.

    While it is open nobody asks; whoever owns it probes in the background and reports the success. Both transitions
    answer whether they changed anything, so that a fault is logged once and not once a request.

    Args:
        threshold: faults in a row that open it.
    """

    def __init__(self, threshold: int = 3) -> None:
        self._threshold = threshold
        self._faults = 0

    def __repr__(self) -> str:
        return f"<Breaker: {'open' if self.is_open else 'closed'}, {self._faults} faults in a row>"

    @property
    def is_open(self) -> bool:
        """Whether asking is given up for now."""
        return self._faults >= self._threshold

    def fault(self) -> bool:
        """Take note of a fault; return whether it opened the breaker."""
        was_open = self.is_open
        self._faults += 1
        return self.is_open and not was_open

    def success(self) -> bool:
        """Take note of a success; return whether it closed the breaker."""
        was_open = self.is_open
        self._faults = 0
        return was_open


class RateBreaker:
    """Opens when too large a share of the last calls failed, and lets one call try whether it may close again.

    While it is open nobody calls. After `open_for` seconds it is half-open: the next caller tries, and its success
    closes the breaker; its failure opens it for twice as long, `open_at_most` in the end. A failure that may be the
    fault of the one it was for lets another try instead, until `least` of them have failed. Success and failure answer
    whether they changed anything, so that a change is logged once. Threads may share it.

    Args:
        clock: monotonic seconds.
        window: seconds over which calls are counted; a try that takes longer no longer keeps others from trying.
        least: calls in the window below which nothing is concluded.
        rate: share of failures among them that opens it.
        open_for: seconds before the first try.
        open_at_most: seconds between tries at most.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        window: float = 10.0,
        least: int = 5,
        rate: float = 0.5,
        open_for: float = 1.0,
        open_at_most: float = 30.0,
    ) -> None:
        self._clock = clock
        self._window = window
        self._least = least
        self._rate = rate
        self._first_pause = open_for
        self._longest_pause = open_at_most
        self.begin_anew()
        forking.register(self)

    def begin_anew(self) -> None:
        """Know nothing of the calls so far, in a forked process."""
        self._pause = self._first_pause
        self._last: Health = "unknown"
        self._opens_until: float | None = None
        self._tries_until: float | None = None
        # Another one with each change and each try: a ticket of an earlier one tells nothing of now.
        self._ticket = 0
        self._failed_tries = 0
        self._try_no_more: dict[int, float] = {}
        # One place for each second of the window: what leaves it is forgotten a second at a time.
        self._seconds: deque[_Second] = deque()
        self._lock = CollectableLock()

    def __repr__(self) -> str:
        return f"<RateBreaker: {self.state}>"

    @property
    def state(self) -> State:
        """Whether calls are made, given up for now, or tried one at a time."""
        until = self._opens_until
        if until is None:
            return "closed"
        return "open" if self._clock() < until else "half-open"

    @property
    def health(self) -> Health:
        """The state after the last call."""
        state = self.state
        if state == "closed":
            return self._last
        return "failing" if state == "open" else "probing"

    @property
    def retry_after(self) -> float:
        """Seconds until the next try is due."""
        until = self._opens_until
        return 0.0 if until is None else max(0.0, until - self._clock())

    def admit(self, who: Hashable | None = None) -> Ticket | None:
        """Return a ticket if a call may be made now; whoever is let in gives it back with what became of the call.

        Args:
            who: for whom it is made, if for one.
        """
        with self._lock:
            if self._opens_until is None:
                return self._ticket
            now = self._clock()
            if now < self._opens_until or (self._tries_until is not None and now < self._tries_until):
                return None
            if who is not None and now < self._try_no_more.get(hash(who), now):
                return None
            self._tries_until = now + self._window
            self._ticket += 1
            return self._ticket

    def success(self, ticket: Ticket) -> bool:
        """Take note of a call that was answered; return whether it closed the breaker."""
        with self._lock:
            if ticket != self._ticket:
                return False
            self._last = "ok"
            if self._opens_until is None:
                self._current().answered += 1
                return False
            self._change(opens_until=None)
            self._pause = self._first_pause
            self._seconds.clear()
            self._try_no_more.clear()
            return True

    def failure(self, ticket: Ticket, who: Hashable | None = None) -> bool:
        """Take note of a call that failed; return whether it opened the breaker.

        Args:
            ticket: what `admit` gave for it.
            who: for whom it was made, where the fault may be theirs alone: such a one counts once in a window, so that
                nobody closes the way to all others by asking again and again, nor keeps it closed.
        """
        with self._lock:
            if ticket != self._ticket:
                return False
            self._last = "failing"
            if self._opens_until is not None:
                self._failed_try(who)
                return False
            current = self._current()
            if who is not None and not self._is_first(hash(who), current):
                return False
            current.failed += 1
            failed = sum(second.failed for second in self._seconds)
            calls = failed + sum(second.answered for second in self._seconds)
            if calls < self._least or failed < self._rate * calls:
                return False
            self._change(opens_until=self._clock() + self._pause)
            return True

    def abandon(self, ticket: Ticket) -> None:
        """Take note of a call of which nothing will be known; if it was the one that tries, another may."""
        self._lock.soon(partial(self._abandoned, ticket))

    def _abandoned(self, ticket: Ticket) -> None:
        if ticket == self._ticket and self._opens_until is not None:
            self._another_may_try()

    def _failed_try(self, who: Hashable | None) -> None:
        now = self._clock()
        self._failed_tries += 1
        # One whose own query fails must not shut the others out of a source that is well again; of a source that
        # answers nobody, and does not say so, as many tell as open it.
        if who is not None and self._failed_tries < self._least:
            self._try_no_more = {one: until for one, until in self._try_no_more.items() if until > now}
            self._try_no_more[hash(who)] = now + self._window
            self._another_may_try()
            return
        self._pause = min(2 * self._pause, self._longest_pause)
        self._change(opens_until=now + self._pause)

    def _change(self, *, opens_until: float | None) -> None:
        self._opens_until = opens_until
        self._failed_tries = 0
        self._another_may_try()

    def _another_may_try(self) -> None:
        self._tries_until = None
        self._ticket += 1

    def _is_first(self, who: int, current: _Second) -> bool:
        if any(who in second.failed_for for second in self._seconds):
            return False
        if len(current.failed_for) < _MOST_KNOWN:
            current.failed_for.add(who)
        return True

    def _current(self) -> _Second:
        now = self._clock()
        while self._seconds and self._seconds[0].since <= now - self._window:
            self._seconds.popleft()
        if not self._seconds or self._seconds[-1].since <= now - 1.0:
            self._seconds.append(_Second(now))
        return self._seconds[-1]


class _Second:
    __slots__ = ("answered", "failed", "failed_for", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.answered = 0
        self.failed = 0
        self.failed_for: set[int] = set()
