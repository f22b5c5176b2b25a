"""When to stop asking something that fails, and when to try again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal, TypeAlias

State: TypeAlias = Literal["closed", "open", "half-open"]

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
    closes the breaker; its failure opens it for twice as long, `open_at_most` in the end. Success and failure answer
    whether they changed anything, so that a change is logged once.

    Args:
        clock: monotonic seconds.
        window: seconds over which calls are counted.
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
        self._pause = open_for
        self._opens_until: float | None = None
        self._is_trying = False
        # One place for each second of the window: what leaves it is forgotten a second at a time.
        self._seconds: deque[_Second] = deque()

    def __repr__(self) -> str:
        return f"<RateBreaker: {self.state}>"

    @property
    def state(self) -> State:
        """Whether calls are made, given up for now, or tried one at a time."""
        if self._opens_until is None:
            return "closed"
        return "open" if self._clock() < self._opens_until else "half-open"

    @property
    def retry_after(self) -> float:
        """Seconds until the next try is due."""
        return 0.0 if self._opens_until is None else max(0.0, self._opens_until - self._clock())

    def admit(self) -> bool:
        """Return whether a call may be made now; whoever is let in reports its success or failure."""
        if self._opens_until is None:
            return True
        if self._is_trying or self._clock() < self._opens_until:
            return False
        self._is_trying = True
        return True

    def success(self) -> bool:
        """Take note of a call that was answered; return whether it closed the breaker."""
        if self._opens_until is None:
            self._current().answered += 1
            return False
        if not self._is_trying:
            return False  # a call from before it opened
        self._opens_until, self._is_trying, self._pause = None, False, self._first_pause
        self._seconds.clear()
        return True

    def failure(self, who: str | None = None) -> bool:
        """Take note of a call that failed; return whether it opened the breaker.

        Args:
            who: for whom it was made, where the fault may be theirs alone: such a one counts once in a window, so that
                nobody closes the way to all others by asking again and again.
        """
        if self._opens_until is not None:
            if self._is_trying:
                self._is_trying = False
                self._pause = min(2 * self._pause, self._longest_pause)
                self._opens_until = self._clock() + self._pause
            return False
        current = self._current()
        if who is not None and not self._is_first(hash(who), current):
            return False
        current.failed += 1
        failed = sum(second.failed for second in self._seconds)
        calls = failed + sum(second.answered for second in self._seconds)
        if calls < self._least or failed < self._rate * calls:
            return False
        self._opens_until = self._clock() + self._pause
        return True

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
