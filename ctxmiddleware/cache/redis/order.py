"""What is asked of Redis: orders of callers, and the commands they travel in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import anyio
import msgspec

from .lua.script import Script
from .servers.driver import Call

A = TypeVar("A")

# A script holds up everyone's commands while it runs: for a hundred users about half a millisecond.
MAX_USERS: Final = 100
MAX_BYTES: Final = 512 * 1024


class Errand(NamedTuple):
    """One user's keys and arguments."""

    keys: Sequence[str]
    arguments: tuple[bytes | int, ...] = ()

    @property
    def size(self) -> int:
        """Bytes it brings, keys apart."""
        return sum(len(each) for each in self.arguments if isinstance(each, bytes))


class Order(Generic[A]):
    """What one caller asks for: a script, for some users.

    Args:
        script: answers with a list, one item for each user.
        errands: the users, `MAX_USERS` at most.
        common: arguments that all of them share; only orders that share them travel together.
        at: monotonic seconds at which it was placed.
        tag: only orders with the same one travel together; of a cluster it is the hash tag of their keys.

    `answers` is None where nobody can say, `done` tells when that is known.
    """

    __slots__ = ("answers", "at", "common", "done", "errands", "script", "size", "tag")

    def __init__(
        self,
        script: Script[list[A]],
        errands: Sequence[Errand],
        common: tuple[int, ...],
        at: float,
        tag: str = "",
    ) -> None:
        self.tag = tag
        self.script = script
        self.errands = errands
        self.common = common
        self.at = at
        self.size = sum(errand.size for errand in errands)
        self.answers: list[A] | None = None
        self.done = anyio.Event()


class Batch:
    """Orders that travel as one command.

    Args:
        order: the first of them.
    """

    def __init__(self, order: Order[Any]) -> None:
        self._script = order.script
        self._common = order.common
        self._orders = [order]
        self._users = len(order.errands)
        self._size = order.size

    def takes(self, order: Order[Any]) -> bool:
        """Take an order of the same kind along, if there is room; return whether it was taken."""
        users, size = self._users + len(order.errands), self._size + order.size
        if users > MAX_USERS or size > MAX_BYTES:
            return False
        self._orders.append(order)
        self._users, self._size = users, size
        return True

    def call(self, token: bytes) -> Call:
        """Return the command, with a value never used before."""
        errands = [errand for order in self._orders for errand in order.errands]
        arguments = [argument for errand in errands for argument in errand.arguments]
        return Call(
            self._script, [key for errand in errands for key in errand.keys], (token, *self._common, *arguments)
        )

    def deliver(self, token: bytes, reply: object) -> None:
        """Hand the answers to the orders.

        Raises:
            Exception: it is no answer, or another's.
        """
        answers = answer_of(self._script, token, reply)
        if len(answers) != self._users:
            raise ConnectionError("Redis answered for another number of users than was asked for")
        start = 0
        for order in self._orders:
            order.answers = answers[start : start + len(order.errands)]
            start += len(order.errands)


def answer_of(script: Script[A], token: bytes, reply: object) -> A:
    """Return what a script answered.

    Raises:
        Exception: it failed, or this is no answer to it, or one to another call.
    """
    if isinstance(reply, Exception):
        raise reply
    # Converted strictly: whatever else answers at that port is a fault here, not a surprise later.
    echo, answer = msgspec.convert(reply, script.reply)
    if echo != token:
        raise OutOfStep("the answer of Redis belongs to another question")
    return answer


class OutOfStep(ConnectionError):
    """A connection hands out answers to other questions than were asked."""


def gathered(orders: Sequence[Order[Any]]) -> list[Batch]:
    """Return the commands in which orders travel: few, and each for orders of one kind."""
    full: list[Batch] = []
    open_: dict[object, Batch] = {}
    for order in orders:
        kind = (order.script.digest, order.common, order.tag)
        batch = open_.get(kind)
        if batch is None or not batch.takes(order):
            if batch is not None:
                full.append(batch)
            open_[kind] = Batch(order)
    return [*full, *open_.values()]


def shared_out(errands: Sequence[Errand], *, apart: bool) -> list[tuple[str, list[int]]]:
    """Return which errands go into which order, by their places, with the tag of each order.

    Args:
        errands: the users.
        apart: whether keys of different hash tags may not be in one command.
    """
    by_tag: dict[str, list[int]] = {}
    for place, errand in enumerate(errands):
        by_tag.setdefault(errand.keys[0].partition("}")[0] if apart else "", []).append(place)
    return [(tag, share) for tag, places in by_tag.items() for share in _shares(errands, places)]


def _shares(errands: Sequence[Errand], places: Sequence[int]) -> list[list[int]]:
    """Return places in shares that one command may carry; one errand too large for any is a share of its own."""
    shares: list[list[int]] = []
    size = 0
    for place in places:
        size += errands[place].size
        if not shares or len(shares[-1]) >= MAX_USERS or size > MAX_BYTES:
            shares.append([])
            size = errands[place].size
        shares[-1].append(place)
    return shares
