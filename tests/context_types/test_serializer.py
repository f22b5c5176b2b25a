"""Whether contexts that would come back as others are found by comparing, are not stored, and are warned about once."""

from __future__ import annotations

import dataclasses
import logging
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path, PurePath
from typing import Any

import msgspec
import pydantic
import pytest

from ctxmiddleware import JsonValue
from ctxmiddleware.context_types.difference import difference
from ctxmiddleware.context_types.serializer import CHECKED_EVERY, Serializer


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


def test_one_in_a_thousand_is_compared_after_the_first() -> None:
    """Comparing costs as much as decoding; a value whose type is right is seldom wrong."""
    serializer: Serializer[Nested] = Serializer(Nested)
    assert serializer.encode(Nested("a", [1])) is not None
    compared = [serializer.encode(Nested("a", TUPLE)) is None for _ in range(CHECKED_EVERY)]
    assert compared.count(True) == 1
    assert compared[-1]


def test_once_one_differed_every_value_is_compared() -> None:
    """What is wrong once may be wrong again; those that are right are stored."""
    serializer: Serializer[Nested] = Serializer(Nested)
    assert serializer.encode(Nested("a", TUPLE)) is None
    for _ in range(3):
        assert serializer.encode(Nested("a", [1])) is not None
        assert serializer.encode(Nested("a", TUPLE)) is None


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
