"""Whether contexts that would come back as others are found by comparing, are not stored, and are warned about once."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path, PurePath
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest

from ctxmiddleware import JsonValue
from ctxmiddleware.context_types.difference import difference
from ctxmiddleware.context_types.serializer import Serializer


class Aliased(pydantic.BaseModel):
    """Reads one name and writes another."""

    one: int = pydantic.Field(validation_alias="read", serialization_alias="written")


class Doubling(pydantic.BaseModel):
    """Changes what it reads."""

    one: int

    @pydantic.field_validator("one")
    @classmethod
    def double(cls, value: int) -> int:
        """Return twice the value."""
        return 2 * value


class Private(pydantic.BaseModel):
    """Holds what no serializer sees."""

    one: int
    _hidden: int = pydantic.PrivateAttr(default=0)


class Nested(msgspec.Struct):
    """Holds values that are found by comparing only."""

    name: str
    value: JsonValue = None


# What a type checker refuses too.
TUPLE: Any = (1,)


@dataclasses.dataclass
class Extra:
    """May be given further attributes."""

    one: int


def _private() -> Private:
    value = Private(one=1)
    value._hidden = 5
    return value


def _extra() -> Extra:
    value = Extra(1)
    value.more = 2  # type: ignore[attr-defined]  # that is the point
    return value


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (Aliased.model_validate({"read": 1}), "it cannot be decoded again (ValidationError)"),
        (Doubling(one=1), "one comes back as another value or type"),
        (_private(), "__pydantic_private__"),
        (_extra(), "more comes back"),
        (Nested("a", TUPLE), "value comes back"),
        (Nested("a", {"b": [{"c": TUPLE}]}), "value{}[]{} comes back"),
        (Nested("a", 2**64), "value cannot be encoded (OverflowError)"),
    ],
    ids=str,
)
def test_a_value_that_would_come_back_as_another_is_not_stored(
    value: Any, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning names the field, and nothing of what it holds."""
    caplog.set_level(logging.WARNING)
    serializer: Serializer[Any] = Serializer(type(value))
    for _ in range(3):
        assert serializer.encode(value) is None
    (record,) = caplog.records
    assert "kept in memory only and not stored in Redis" in record.message
    assert fault in record.message


def test_every_value_is_compared() -> None:
    """A type whose first values were right may hold another class, or another shape, in the next one."""
    serializer: Serializer[Nested] = Serializer(Nested)
    for _ in range(3):
        assert serializer.encode(Nested("a", [1])) is not None
        assert serializer.encode(Nested("a", TUPLE)) is None


class Rights(msgspec.Struct, frozen=True):
    """Part of a context."""

    allow: tuple[str, ...]


class MoreRights(Rights, frozen=True):
    """Has a field that the declared class does not have."""

    deny: tuple[str, ...] = ()


class Spending(pydantic.BaseModel):
    """A model whose own JSON does not hold every float."""

    limit: float | None


HOLDING = msgspec.defstruct("Holding", [("rights", Rights), ("level", Sequence[int])], frozen=True)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (HOLDING, HOLDING(Rights(()), [1]), HOLDING(MoreRights((), ("root",)), [1])),
        (HOLDING, HOLDING(Rights(()), [1]), HOLDING(Rights(()), (1,))),
        (Spending, Spending(limit=1.0), Spending(limit=float("inf"))),
    ],
)
def test_a_value_that_differs_after_others_is_not_stored(kind: Any, good: Any, bad: Any) -> None:
    """A derived class would lose a field, a tuple become a list, and an infinite limit none."""
    serializer: Serializer[Any] = Serializer(kind)
    assert serializer.encode(serializer.in_utc(good)) is not None
    assert serializer.encode(serializer.in_utc(bad)) is None


def test_times_are_in_utc_wherever_they_come_from() -> None:
    """The moment is kept and the offset is not, in memory as in Redis."""
    kind = msgspec.defstruct("Timed", [("at", datetime)], frozen=True)
    serializer: Serializer[Any] = Serializer(kind)
    east = kind(datetime(2024, 6, 1, 12, tzinfo=timezone(timedelta(hours=2))))
    value = serializer.in_utc(east)
    assert value == east
    assert value.at.utcoffset() == timedelta(0)
    encoded = serializer.encode(value)
    assert encoded is not None
    assert serializer.decode(encoded).at.tzinfo is value.at.tzinfo is UTC
    naive = kind(datetime(2024, 6, 1, 12))
    assert serializer.in_utc(naive) == naive


@pytest.mark.parametrize("fold", [0, 1])
def test_a_time_in_an_hour_that_comes_twice_is_kept(fold: int) -> None:
    """It equals no time with another zone, and is the same moment (PEP 495)."""
    kind = msgspec.defstruct("Timed", [("at", datetime)], frozen=True)
    serializer: Serializer[Any] = Serializer(kind)
    twice = kind(datetime(2025, 10, 26, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold))
    value = serializer.in_utc(twice)
    assert value.at == datetime(2025, 10, 26, fold, 30, tzinfo=UTC)
    assert serializer.encode(value) is not None


def test_a_value_that_cannot_come_back_keeps_its_times() -> None:
    """It is kept in memory only, as its source gave it."""
    kind = msgspec.defstruct("Timed", [("at", datetime), ("value", JsonValue)])
    serializer: Serializer[Any] = Serializer(kind)
    for wrong in ((1,), 2**64):
        value = kind(datetime(2024, 6, 1, 12, tzinfo=timezone(timedelta(hours=2))), wrong)
        assert serializer.in_utc(value) is value


@pytest.mark.parametrize(
    ("one", "other", "where"),
    [
        (1, True, "the whole"), (1, 1.0, "the whole"), ([1], (1,), "the whole"), ({1}, {True}, "the whole"),
        ([1, [2]], [1, [3]], "[][]"), ([1], [1, 2], "[]"), ({"a": 1}, {"a": True}, "{}"), ({1: 0}, {True: 0}, "{key}"),
        (Nested("a"), Nested("b"), "name"), (Path("a"), PurePath("a"), "the whole"),
        (datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC), "the whole"),
    ],
)  # fmt: skip
def test_values_of_other_types_differ(one: object, other: object, where: str) -> None:
    """Also where `==` calls them equal; the path holds no key of a mapping."""
    assert difference(one, other) == where
    assert difference(other, one) == where


@pytest.mark.parametrize("value", [float("nan"), -0.0, {1, 2}, frozenset("a"), {}, [], Nested("a", {"b": [None]})])
def test_a_value_is_like_itself_and_its_copy(value: Any) -> None:
    """Not a number is like itself here, though it does not equal itself."""
    assert difference(value, value) is None
    assert difference(msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=type(value)), value) is None
