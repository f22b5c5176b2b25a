"""Requests that get no context: counted by reason, and reported in one log line a minute while a reason lasts."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeAlias

from starlette.types import Scope

from .failure_log import SECONDS, one_line
from .stats import Counters

logger = logging.getLogger("ctxmiddleware.refusals")

REFUSAL: Final = "refusal"

_COUNTED_KEY: Final = "ctxmiddleware_counted"
# Exceptions and hints have names and texts of the application's.
_MOST_KEYS: Final = 64
_DIGITS: Final = re.compile(r"\d+")

Key: TypeAlias = tuple[str, str]


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
    def key(self) -> Key:
        """The kind that is reported apart: the label with the type of an error, or the hint without its numbers."""
        way = _DIGITS.sub("", self.hint) if self.error is None else type(self.error).__name__
        return self.label, way


@dataclass(frozen=True, slots=True)
class Counted:
    """The counted reason of a request, before another layer refuses it.

    Args:
        outcome: the label under `request`.
        cause: why it has no context, where that was counted under `refusal`.
        is_reported: whether that was reported.
    """

    outcome: str
    cause: Cause | None = None
    is_reported: bool = False


WITHHELD: Final = Cause(
    "withheld",
    "the answer to an excluded path, a preflight or a public endpoint is replaced by a refusal, because a middleware "
    "inside answered by itself or led the request to another endpoint, which may have run: rewrite paths outside of "
    "UserContextMiddleware",
    logging.ERROR,
)


class Refusals:
    """Counts requests without a context, and reports the first of each reason and one a minute after it.

    Args:
        counters: where they are counted, under `request` by outcome and under `refusal` by reason.
        clock: monotonic seconds.
    """

    def __init__(self, counters: Counters, clock: Callable[[], float] = time.monotonic) -> None:
        self._counters = counters
        self._clock = clock
        # When each key was reported, and how many requests of it were not reported since.
        self._reported: dict[Key, _Reported] = {}

    def add(self, cause: Cause, outcome: str, scope: Scope, *, is_admin: Callable[[], bool] | None) -> None:
        """Count a request and report it if a line is due; an anonymous one until an admin is reached.

        Args:
            cause: why it gets no context.
            outcome: the label under `request`.
            scope: of the request.
            is_admin: whether its route leads to the admin; None where the request is not to be reported.
        """
        self._count(cause.label, outcome, 1)
        waiting = None if is_admin is None else self._report_if_due(cause, is_admin)
        if outcome == "anonymous":
            scope.setdefault(_COUNTED_KEY, []).append(partial(self._uncount, cause.label, outcome, waiting))

    def refuse(self, counted: Counted, cause: Cause | None = None) -> None:
        """Count a request as refused in the place of what it was counted as, and report it unless it was reported.

        Args:
            counted: what it was counted as.
            cause: why it is refused; None for the cause that was counted.
        """
        if counted.outcome != "refused":
            self._counters.add("request", counted.outcome, -1)
            self._counters.add("request", "refused")
        reason = cause or counted.cause
        if reason is None:
            return
        if counted.cause is None:
            self._counters.add(REFUSAL, reason.label)
        if cause is not None or not counted.is_reported:
            self._report_if_due(reason, _never)

    def _report_if_due(self, cause: Cause, is_admin: Callable[[], bool]) -> _Reported:
        reported = self._reported_of(cause)
        now = self._clock()
        if reported.at is not None and now < reported.at + SECONDS:
            logger.debug("no context for a request, reason %r: %s", cause.label, cause.hint, exc_info=cause.error)
            reported.waiting += 1
        elif not is_admin():
            count, reported.at, reported.waiting = reported.waiting + 1, now, 0
            self._report(cause, count)
        return reported

    def _reported_of(self, cause: Cause) -> _Reported:
        key = cause.key
        if key not in self._reported and len(self._reported) >= _MOST_KEYS:
            key = cause.label, ""
        return self._reported.setdefault(key, _Reported())

    def _report(self, cause: Cause, count: int) -> None:
        logger.log(
            cause.level,
            "no context for %d request(s), reason %r: %s",
            count,
            cause.label,
            one_line(cause.hint),
            exc_info=cause.error,
            extra={"reason": cause.label, "count": count, **cause.fields},
        )

    def _count(self, label: str, outcome: str, amount: int) -> None:
        self._counters.add(REFUSAL, label, amount)
        self._counters.add("request", outcome, amount)

    def _uncount(self, label: str, outcome: str, reported: _Reported | None) -> None:
        self._count(label, outcome, -1)
        if reported is not None:
            reported.waiting = max(0, reported.waiting - 1)


@dataclass(slots=True, eq=False)
class _Reported:
    at: float | None = None
    waiting: int = 0


def _never() -> bool:
    return False


def uncount(scope: Scope) -> None:
    """Take back what was counted of an anonymous request that has reached an admin, which has a guard of its own."""
    counted: list[Callable[[], None]] = scope.get(_COUNTED_KEY, [])
    while counted:
        counted.pop()()
