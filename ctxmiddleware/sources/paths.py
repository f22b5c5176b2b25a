"""The ways to a source, each behind a breaker of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import TypeVar

from ..breaker import Health, RateBreaker, State, Ticket
from ..errors import SourceUnavailable
from .exchange import OutOfTime, WayClosed

logger = logging.getLogger("ctxmiddleware.sources")

R = TypeVar("R")


class Paths:
    """Guards calls by the way they take: one that keeps failing is left alone for a while, the others go on.

    A call fails where the source could not answer; a wrong row is an answer. That a call for many users failed tells
    nothing of the way unless it was an outage or ran out of time: it may have been too much, or the fault of one of
    them. And one user who cannot be answered, however often asked for, is no reason to leave the others alone.

    Args:
        names: the ways.
        clock: monotonic seconds.
        cancelled_fails_after: seconds from which a cancelled call has failed, for it was the end of its time that
            cancelled it; of one cancelled before nothing is known.
    """

    def __init__(
        self,
        names: Iterable[str],
        clock: Callable[[], float] = time.monotonic,
        *,
        cancelled_fails_after: float = 0.5,
    ) -> None:
        self._breakers = {name: RateBreaker(clock) for name in names}
        self._clock = clock
        self._cancelled_fails_after = cancelled_fails_after

    def states(self) -> dict[str, State]:
        """Return the state of each way."""
        return {name: breaker.state for name, breaker in self._breakers.items()}

    def health(self) -> dict[str, Health]:
        """Return what the calls so far have shown of each way."""
        return {name: breaker.health for name, breaker in self._breakers.items()}

    async def through(
        self, path: str, call: Callable[[], Awaitable[R]], *, who: Hashable | None = None, many: bool = False
    ) -> R:
        """Make a call, unless its way is closed to calls for now.

        Args:
            path: the way it takes.
            call: makes it.
            who: stands for the user it is for, where it is for one.
            many: whether it is for many users.

        Raises:
            WayClosed: it is closed to calls, and opens again after `retry_after` seconds.
        """
        breaker = self._breakers[path]
        ticket = breaker.admit(who)
        if ticket is None:
            raise WayClosed(
                f"the source failed again and again ({path}): it is left alone for a while",
                retry_after=max(1.0, breaker.retry_after),
                outage=True,
            )
        since = self._clock()
        try:
            answer = await call()
        except SourceUnavailable as error:
            if error.outage:
                self._failed(path, ticket)
            elif not many or isinstance(error, OutOfTime) or breaker.state != "closed":
                self._failed(path, ticket, who)
            raise
        except Exception:
            self._answered(path, ticket)
            raise
        except GeneratorExit:
            # By the garbage collector, which is no end of its time.
            breaker.abandon(ticket)
            raise
        except BaseException:
            if self._clock() - since >= self._cancelled_fails_after:
                self._failed(path, ticket, who)
            else:
                # Half-open, it was the one call that tries: another must be let in.
                breaker.abandon(ticket)
            raise
        self._answered(path, ticket)
        return answer

    def _failed(self, path: str, ticket: Ticket, who: Hashable | None = None) -> None:
        if self._breakers[path].failure(ticket, who):
            logger.warning("the source keeps failing: it is left alone for a while", extra={"path": path})

    def _answered(self, path: str, ticket: Ticket) -> None:
        if self._breakers[path].success(ticket):
            logger.warning("the source answers again", extra={"path": path})
