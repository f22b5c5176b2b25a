"""Who is the master now, as the sentinels say."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..options import RedisOptions
from .connection import once
from .quorum import heard
from .target import Place, Target, text


class State(msgspec.Struct, frozen=True):
    """What a sentinel says of the master."""

    ip: str
    port: int
    flags: str
    config_epoch: int = msgspec.field(name="config-epoch")

    @property
    def place(self) -> Place:
        """The address it names."""
        return Place(self.ip, self.port)

    def has(self, flag: str) -> bool:
        """Return whether it gives the master a flag."""
        return flag in self.flags.split(",")


class Sentinels:
    """The sentinels of one master. Nothing is kept open to them.

    Args:
        target: where they are, and the name they know the master by.
        options: `timeout` is how long they may take together.
    """

    def __init__(self, target: Target, options: RedisOptions) -> None:
        self._target = target
        self._seconds = options.timeout

    async def master(self) -> Place:
        """Return where the master is.

        All are asked at once: one that hangs costs nothing while most of them answer, and one that was cut off, and
        goes on naming a former master, is overruled by the greater epoch of those who have seen a failover since.

        Raises:
            Exception: none of them answers, none knows such a master, or they agree that it is down.
        """
        places = self._target.places
        states = await heard(places, self._ask, enough=len(places) // 2 + 1, seconds=self._seconds)
        return named(states)

    async def _ask(self, place: Place) -> State:
        url = self._target.places_url or self._target.url
        (answer,) = await once(url, place, [("SENTINEL", "MASTER", self._target.service)], self._seconds)
        if isinstance(answer, Exception):
            raise answer
        return _state(answer)


def named(states: Sequence[State]) -> Place:
    """Return where the master is, as those say who have seen the latest failover.

    Raises:
        ConnectionError: they agree that it is down.
    """
    epoch = max(state.config_epoch for state in states)
    latest = [state for state in states if state.config_epoch == epoch]
    # The sentinel that leads a failover names the former master under the new epoch until every replica follows the
    # new one, which may take as long as `failover-timeout`; the others name the new master from its first message on.
    former = {state.place for state in latest if state.has("failover_in_progress")}
    current = [state for state in latest if state.place not in former] or latest
    # One sentinel alone may be wrong about a master that is down; a master that they agree about is being replaced.
    if any(state.has("o_down") for state in current):
        raise ConnectionError("the sentinels agree that the master is down")
    return current[0].place


def _state(answer: object) -> State:
    # A list of names and values, or a map, as the protocol in use has it.
    pairs = dict(zip(answer[::2], answer[1::2], strict=True)) if isinstance(answer, list) else answer
    if not isinstance(pairs, dict):
        raise ConnectionError("what answers is no sentinel")
    texts = {text(name): text(value) for name, value in pairs.items()}
    return msgspec.convert(texts, State, strict=False)
