"""Which server one load asks, and whether it asks again."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from ..errors import SourceError, SourceUnavailable
from .answers import FunctionMissing, Value, classify
from .endpoint import Server
from .exchange import Call, NoReply, OutOfTime
from .transport import Transport

# A caller waits behind this; what takes longer is told to it instead.
LONGEST_WAIT: Final = 2.0

Question = Callable[[Server], Call]


class Load:
    """The requests of one load, which together may be repeated once.

    Args:
        transport: sends them.
        first: the server asked first.
        primary: the server asked after a passing fault; the same one where there is no replica.
        rng: scatters the pauses, so that instances that failed together do not return together.
        wall_clock: seconds since the epoch, for a Retry-After that is a date.
        sleep: waits so many seconds before the question is repeated.
    """

    def __init__(
        self,
        transport: Transport,
        first: Server,
        primary: Server,
        *,
        rng: random.Random,
        wall_clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._transport = transport
        self._server = first
        self._spare: Server | None = primary
        self._rng = rng
        self._wall_clock = wall_clock
        self._sleep = sleep

    @property
    def schema(self) -> str:
        """The schema everything is in."""
        return self._server.schema

    async def ask(self, question: Question, *, function: str | None = None) -> Value | FunctionMissing:
        """Put a question to the server, once more after a passing fault.

        Args:
            question: makes the call for a server.
            function: the name of the function that is called, if it is one.

        Raises:
            SourceUnavailable: a passing fault, twice or not worth repeating.
            SourceMisconfigured: an operator must mend something.
            SourceError: the answer is none.
        """
        while True:
            try:
                return await self._once(question, function)
            except SourceUnavailable as error:
                fault = error
            if not await self._may_repeat(fault):
                raise _told(fault)

    async def read(self, question: Question) -> Value:
        """Put a question that is not about a function.

        Raises:
            SourceUnavailable: a passing fault, twice or not worth repeating.
            SourceMisconfigured: an operator must mend something.
            SourceError: the answer is none.
        """
        answer = await self.ask(question)
        if isinstance(answer, FunctionMissing):
            raise SourceError("the API spoke of a function where a table was read")
        return answer

    async def _once(self, question: Question, function: str | None) -> Value | FunctionMissing:
        reply = await self._transport.send(question(self._server))
        return classify(
            reply.status,
            reply.headers,
            reply.body,
            function=function,
            now=self._wall_clock(),
            schema=self._server.schema,
        )

    async def _may_repeat(self, fault: SourceUnavailable) -> bool:
        spare, self._spare = self._spare, None
        if spare is None:
            return False
        if spare is not self._server:
            self._server = spare
            return True
        wait = fault.retry_after or 0.0
        if (isinstance(fault, NoReply) and not fault.again) or wait > LONGEST_WAIT:
            return False
        await self._sleep(wait + self._rng.uniform(0.05, 0.15))
        return True


def _told(fault: SourceUnavailable) -> SourceUnavailable:
    if not isinstance(fault, NoReply):
        return fault
    # The frames of a request that failed hold its query.
    return OutOfTime(str(fault)) if fault.late else SourceUnavailable(str(fault), outage=fault.outage)
