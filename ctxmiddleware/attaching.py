"""How a failure is kept beside the error that is raised in its place."""

from __future__ import annotations

import contextlib
import logging

from .errors import InvalidationFailed
from .failure_log import log_failure

logger = logging.getLogger("ctxmiddleware.holding")


def attach(failure: Exception, error: BaseException) -> None:
    """Add a failure to the error that is raised in its place, as a note and as its context.

    Args:
        failure: of the end of a block of `plugin.changing`.
        error: that the block ends with, or a cancellation that came meanwhile.
    """
    if not isinstance(failure, InvalidationFailed):
        log_failure(logger, logging.ERROR, "a block of plugin.changing() was not ended", error=failure)
    # An error may refuse attributes.
    with contextlib.suppress(Exception):
        error.add_note(f"and at the end of plugin.changing(): {failure}")
    # Raised while the other was handled, it would be a circle.
    failure.__context__ = None
    first, seen = error, {id(failure)}
    while first.__context__ is not None:
        seen.add(id(first))
        first = first.__context__
        if id(first) in seen:
            return
    # By the descriptor: an error may be a frozen dataclass.
    vars(BaseException)["__context__"].__set__(first, failure)
