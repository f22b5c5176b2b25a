"""The log line of a request whose route cannot be found out, because a route fails to say whether it takes it."""

from __future__ import annotations

import logging
from typing import Final

from .failure_log import Seldom, log_failure

logger = logging.getLogger("ctxmiddleware.routing")

# Any client can have it written, by a path with a number of thousands of digits: one a minute of each kind.
_SELDOM: Final = Seldom()


def report_unreadable(error: Exception) -> None:
    """Log that a route has raised in the place of saying whether it takes a request, once a minute."""
    level = _SELDOM.level(logging.ERROR, type(error).__name__)
    log_failure(logger, level, "a route failed to say whether it takes a request, so the refusal stands", error=error)
