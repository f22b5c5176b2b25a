"""Whether a function of the database was found missing a short while ago."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

logger = logging.getLogger("ctxmiddleware.sources")

# How long a missing function is believed to be missing: somebody may be installing it now.
ABSENCE_LASTS: Final = 60.0


class Absence:
    """Remembers that a function is missing, and tells of each change once.

    Args:
        function: its name.
        instead: what is done in its place, as the log says it.
        clock: monotonic seconds.
        note: what else there is to know of the migration that installs it.
    """

    def __init__(self, function: str, instead: str, clock: Callable[[], float], note: str = "") -> None:
        self._function = function
        self._message = (
            f"the function %s is not installed: {instead}; "
            f"`ctxmiddleware sql show` prints the migration that installs it{note}"
        )
        self._clock = clock
        self._absent = False
        self._until = 0.0

    @property
    def remembered(self) -> bool:
        """Whether it need not be called, because it was missing a short while ago."""
        return self._absent and self._clock() < self._until

    def seen(self, *, absent: bool) -> None:
        """Take note of whether it was there."""
        if absent:
            self._until = self._clock() + ABSENCE_LASTS
        changed, self._absent = absent is not self._absent, absent
        if not changed:
            return
        if absent:
            logger.warning(self._message, self._function, extra={"function": self._function})
        else:
            logger.warning(
                "the function %s is installed: it is called again", self._function, extra={"function": self._function}
            )
