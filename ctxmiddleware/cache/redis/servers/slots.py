"""Who has which slots of a cluster, as one of its nodes says."""

from __future__ import annotations

import re
from binascii import crc_hqx
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, cast

from .target import Place, text

SLOTS: Final = 16_384

_EPOCH: Final = re.compile(r"^cluster_current_epoch:([0-9]+)", re.MULTILINE)
_ITSELF: Final = ("", "?")


class Range(NamedTuple):
    """Slots from the first to the last, and the master that has them."""

    first: int
    last: int
    place: Place


class Layout:
    """Who has which slots.

    Args:
        epoch: grows with each change that the masters agree upon.
        ranges: in any order.
    """

    def __init__(self, epoch: int, ranges: Sequence[Range]) -> None:
        self.epoch = epoch
        self._ranges = sorted(ranges)
        self._firsts = [each.first for each in self._ranges]
        self.places = frozenset(each.place for each in ranges)

    def owner(self, slot: int) -> Place | None:
        """Return who has a slot, or None where nobody does."""
        number = bisect_right(self._firsts, slot) - 1
        if number < 0 or slot > self._ranges[number].last:
            return None
        return self._ranges[number].place


def layout_of(slots: object, info: object, asked: Place, remap: Callable[[Place], Place]) -> Layout:
    """Return what a node answered.

    Args:
        slots: to CLUSTER SLOTS.
        info: to CLUSTER INFO.
        asked: which node, for one that does not know its own address.
        remap: turns an address as the cluster names it into one that leads there.

    Raises:
        Exception: it is in no cluster, or knows nothing of it yet.
    """
    for answer in (slots, info):
        if isinstance(answer, Exception):
            raise answer
    ranges = [_range(each, asked, remap) for each in cast("list[list[Any]]", slots)]
    epoch = _EPOCH.search(text(info))
    if not ranges or epoch is None:
        raise ConnectionError("the server knows of no slots: it is in no cluster")
    return Layout(int(epoch[1]), ranges)


def _range(answer: list[Any], asked: Place, remap: Callable[[Place], Place]) -> Range:
    first, last, (host, port, *_) = answer[:3]
    name = "" if host is None else text(host)
    if name in _ITSELF:
        return Range(int(first), int(last), Place(asked.host, int(port)))
    return Range(int(first), int(last), remap(Place(name, int(port))))


def slot_of(key: str) -> int:
    """Return the slot of a key: of what stands between its first braces, if anything does."""
    _, opened, rest = key.partition("{")
    tag, closed, _ = rest.partition("}")
    return crc_hqx((tag if opened and closed and tag else key).encode(), 0) % SLOTS
