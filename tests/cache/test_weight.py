"""Whether what a value weighs comes near to what it holds."""

from __future__ import annotations

import collections
import enum
import functools
import gc
import logging
import sys
import tracemalloc
import uuid
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

import msgspec
import pytest

from ctxmiddleware.cache.base import Entry
from ctxmiddleware.cache.weight import weigh
from ctxmiddleware.model import Assignment, Employee, Region, Slot, UserContext


class Colour(enum.Enum):
    RED = 1


@dataclass
class Plain:
    name: str
    tags: dict[str, list[int]] = field(default_factory=dict)


@dataclass(slots=True)
class Slotted:
    name: str


class Bare:
    __slots__ = "only"

    def __init__(self) -> None:
        self.only = "x" * 1000


class Private:
    __slots__ = ("__secret",)

    def __init__(self, secret: str) -> None:
        self.__secret = secret


class Attributed(dict[str, object]):
    def __init__(self, note: str) -> None:
        super().__init__()
        self.note = note


def _context(number: int) -> UserContext:
    slots = tuple(
        Slot(number * 10 + each, f"code {number} {each}", f"name {number} {each}", number + 500) for each in range(3)
    )
    return UserContext(
        f"user{number}@example.org",
        Employee(
            number + 1000,
            f"User{number}@example.org",
            f"Name {number}",
            f"title {number}",
            f"r{number}",
            is_active=True,
        ),
        tuple(
            Assignment(each.id, number, each.id, is_primary=False, starts_on=date(2020, 1, 1), ends_on=None)
            for each in slots
        ),
        slots,
        (Region(number + 700, f"R{number}", f"region {number}"),),
    )


def test_comes_near_to_what_the_allocator_says() -> None:
    """The sum over a thousand contexts is within a fifth of what Python allocated for them."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    contexts = [_context(number) for number in range(1000)]
    gc.collect()
    real = tracemalloc.get_traced_memory()[0] - before - sys.getsizeof(contexts)
    tracemalloc.stop()
    assert sum(weigh(each) for each in contexts) == pytest.approx(real, rel=0.2)


@pytest.mark.parametrize(
    "grown",
    [
        lambda text: Plain(text),
        lambda text: Plain("n", {text: [1]}),
        lambda text: Slotted(text),
        lambda text: {"a": {"b": [text]}},
        lambda text: {text},
        lambda text: (frozenset({text}),),
        lambda text: collections.deque([text]),
        lambda text: functools.partial(print, text),
        lambda text: functools.partial(print, end=text),
        lambda text: Private(text),
        lambda text: Attributed(text),
        lambda text: Entry(text, "db", 0, 0, 0, 0),
        lambda text: msgspec.convert({"id": 1, "code": text, "name": "", "region_id": 1}, Slot),
    ],
)
def test_sees_into_every_container(grown: object) -> None:
    """A thousand characters more weigh a thousand bytes more, wherever they are."""
    assert callable(grown)
    assert weigh(grown("x" * 1001)) - weigh(grown("x")) == 1000


def test_sees_a_slot_that_is_not_a_tuple() -> None:
    """A class may name its only slot by a bare string."""
    assert weigh(Bare()) > 1000


def test_counts_a_shared_object_once_and_a_circle_too() -> None:
    """The same object twice in a value weighs once, and a value that holds itself ends."""
    big = "x" * 10_000
    circle: list[object] = [big, big]
    circle.append(circle)
    assert 10_000 < weigh(circle) < 11_000


@pytest.mark.parametrize(
    "value",
    [Colour.RED, uuid.uuid4(), Decimal("1.5"), date(2020, 1, 1), Plain, len, logging, logging.getLogger("x").info],
)
def test_does_not_wander_off_into_classes_and_modules(value: object) -> None:
    """An enum member, an identifier, a class, a function or a module does not bring all it belongs to."""
    assert weigh(value) < 3000
