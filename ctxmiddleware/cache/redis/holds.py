"""How names are held in Redis while a transaction changes what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from ...tracebacks import reduced
from ..shared import HELD_SECONDS, SharedTierFailed
from .keys import KeySpace
from .lua.holds import HOLD, LET_GO
from .lua.script import Script
from .options import RedisOptions
from .order import answer_of
from .servers.driver import Call, reason_of
from .session import Session

_AT_ONCE = 100


class Holds:
    """Writes and removes holds, each of one holder.

    Args:
        keys: of the namespace.
        options: times.
        token: makes a value never used before.
    """

    def __init__(self, keys: KeySpace, options: RedisOptions, token: Callable[[], bytes]) -> None:
        self._keys = keys
        self._wait = options.invalidation_wait
        self._token = token

    async def hold(self, session: Session, names: Sequence[str], holder: bytes) -> list[bool]:
        """Hold names for `HELD_SECONDS` from now, and return for each whether this holder held it already.

        Raises:
            SharedTierFailed: Redis did not confirm it.
        """
        return [held == 1 for held in await self._run(session, HOLD, names, holder, int(1000 * HELD_SECONDS))]

    async def let_go(self, session: Session, names: Sequence[str], holder: bytes) -> None:
        """End the holds of one holder.

        Raises:
            SharedTierFailed: Redis did not confirm it.
        """
        await self._run(session, LET_GO, names, holder)

    async def _run(
        self, session: Session, script: Script[int], names: Sequence[str], *arguments: bytes | int
    ) -> list[int]:
        if not await session.take_place(self._wait):
            raise SharedTierFailed(f"no connection to Redis was free for {self._wait:g} s")
        failure: SharedTierFailed | None = None
        answers: list[int] = []
        try:
            with anyio.fail_after(self._wait):
                answers = await self._in_parts(session, script, names, arguments)
        # The driver raises more than its own errors when what answers is not Redis.
        except Exception as error:  # noqa: BLE001 - raised below
            session.fault(error)
            failure = SharedTierFailed(f"Redis did not take the hold: {reason_of(error)}")
            failure.__cause__ = reduced(error)
        finally:
            session.places.release()
        if failure is not None:
            # Outside of the handler: the driver's own error holds the password in its frames.
            raise failure
        session.success()
        return answers

    async def _in_parts(
        self, session: Session, script: Script[int], names: Sequence[str], arguments: Sequence[bytes | int]
    ) -> list[int]:
        answers: list[int] = []
        for start in range(0, len(names), _AT_ONCE):
            part = names[start : start + _AT_ONCE]
            tokens = [self._token() for _ in part]
            keys = [self._keys.of(("", name)).holds for name in part]
            calls = [Call(script, [key], (token, *arguments)) for key, token in zip(keys, tokens, strict=True)]
            replies = await session.pool.run(calls)
            answers += [answer_of(script, token, reply) for token, reply in zip(tokens, replies, strict=True)]
        return answers
