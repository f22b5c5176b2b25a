"""Requests that get no context: counted by reason, and reported in one log line a minute while a reason lasts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from starlette.types import Scope

from .failure_log import SECONDS
from .stats import Counters

logger = logging.getLogger("ctxmiddleware.refusals")

REFUSAL: Final = "refusal"

_COUNTED_KEY: Final = "ctxmiddleware_counted"
# Exceptions have names of the application's.
_MOST_KEYS: Final = 64


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a request gets no context.

    Args:
        label: of its counter.
        hint: what an operator has to compare; it repeats nothing of a credential and holds no address.
        level: of the log line.
        error: an unexpected exception, whose traceback belongs in the log.
        fields: further fields of the log line.
    """

    label: str
    hint: str
    level: int = logging.WARNING
    error: Exception | None = None
    fields: Mapping[str, object] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What is reported apart: the label, and the type of an unexpected exception."""
        return self.label if self.error is None else f"{self.label}: {type(self.error).__name__}"


class Refusals:
    """Counts requests without a context, and reports the first of each reason and one a minute after it.

    Args:
        counters: where they are counted, under `request` by outcome and under `refusal` by reason.
        clock: monotonic seconds.
    """

    def __init__(self, counters: Counters, clock: Callable[[], float] = time.monotonic) -> None:
        self._counters = counters
        self._clock = clock
        # When each key was reported, and how many its label counted by then.
        self._reported: dict[str, tuple[float, int]] = {}

    def add(self, cause: Cause, outcome: str, scope: Scope, *, is_admin: Callable[[], bool] | None) -> None:
        """Count a request and report it if a line is due; an anonymous one until an admin is reached.

        Args:
            cause: why it gets no context.
            outcome: the label under `request`.
            scope: of the request.
            is_admin: whether its route leads to the admin; None where the request is not to be reported.
        """
        self._count(cause.label, outcome, 1)
        if outcome == "anonymous":
            scope.setdefault(_COUNTED_KEY, []).append(partial(self._count, cause.label, outcome, -1))
        if is_admin is None:
            return
        key = cause.key if cause.key in self._reported or len(self._reported) < _MOST_KEYS else cause.label
        reported_at, before = self._reported.get(key, (None, 0))
        now = self._clock()
        if reported_at is not None and now < reported_at + SECONDS:
            logger.debug("no context for a request, reason %r: %s", cause.label, cause.hint, exc_info=cause.error)
        elif not is_admin():
            total = self._counters.get(REFUSAL, cause.label)
            self._reported[key] = (now, total)
            self._report(cause, max(1, total - before))

    def _report(self, cause: Cause, count: int) -> None:
        logger.log(
            cause.level,
            "no context for %d request(s), reason %r: %s",
            count,
            cause.label,
            cause.hint,
            exc_info=cause.error,
            extra={"reason": cause.label, "count": count, **cause.fields},
        )

    def _count(self, label: str, outcome: str, amount: int) -> None:
        self._counters.add(REFUSAL, label, amount)
        self._counters.add("request", outcome, amount)


def uncount(scope: Scope) -> None:
    """Take back what was counted of an anonymous request that has reached an admin, which has a guard of its own."""
    counted: list[Callable[[], None]] = scope.get(_COUNTED_KEY, [])
    while counted:
        counted.pop()()
