"""When to stop asking something that fails."""

from __future__ import annotations


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
