"""Types of contexts of every kind that may travel, generated, each with values of it."""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypedDict, TypeVar, cast
from uuid import UUID

import attrs
import msgspec
import pydantic
from hypothesis import strategies as st

from ctxmiddleware import JsonValue


class Colour(enum.Enum):
    """Values by name."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    """Values that are integers too."""

    LOW = 1
    HIGH = 2


class Sort(NamedTuple):
    """A type, and a strategy for its values.

    Args:
        type: the type.
        values: of that type.
    """

    type: Any
    values: st.SearchStrategy[Any]


_Time = TypeVar("_Time", datetime, time)


def _without_fold(value: _Time) -> _Time:
    # Which of two equal times before and after a change of clocks it is: not kept, and so such a value is not stored.
    return value.replace(fold=0)


_TIMES = (
    st.datetimes()
    | st.datetimes(timezones=st.just(UTC))
    | st.datetimes(timezones=st.just(timezone(timedelta(hours=2))))
)
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_SMALL = st.integers(-(2**63), 2**63 - 1)
_JSON = st.recursive(
    st.none() | st.booleans() | _SMALL | st.floats(allow_nan=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
LEAVES = (
    Sort(int, _SMALL), Sort(bool, st.booleans()), Sort(float, st.floats()), Sort(str, _TEXT),
    Sort(bytes, st.binary(max_size=6)), Sort(type(None), st.none()),
    Sort(date, st.dates()), Sort(time, st.times().map(_without_fold)),
    Sort(datetime, _TIMES.map(_without_fold)), Sort(timedelta, st.timedeltas()),
    Sort(UUID, st.uuids()), Sort(Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    Sort(Colour, st.sampled_from(Colour)), Sort(Level, st.sampled_from(Level)),
    Sort(IPv4Address, st.ip_addresses(v=4)), Sort(IPv6Address, st.ip_addresses(v=6)),
    Sort(IPv6Network, st.ip_addresses(v=6).map(lambda each: IPv6Network((each, 128)))),
    Sort(Path, _TEXT.filter(lambda text: "\x00" not in text).map(Path)),
    Sort(PurePosixPath, _TEXT.map(PurePosixPath)),
    Sort(JsonValue, _JSON), Sort(dict[str, JsonValue], st.dictionaries(_TEXT, _JSON, max_size=3)),
)  # fmt: skip
# What pydantic's own JSON keeps; a Struct inside a pydantic model needs its leave, and is no field of one.
_FOR_PYDANTIC = tuple(
    sort for sort in LEAVES if sort.type in (int, bool, str, date, UUID, Colour, Level, IPv4Address, Decimal)
)
_numbers = itertools.count()


def _struct(fields: dict[str, Any]) -> type:
    return msgspec.defstruct(f"Struct{next(_numbers)}", list(fields.items()), frozen=True)


def _mutable(fields: dict[str, Any]) -> type:
    return msgspec.defstruct(f"Struct{next(_numbers)}", list(fields.items()))


def _dataclass(fields: dict[str, Any]) -> type:
    return dataclasses.make_dataclass(f"Data{next(_numbers)}", list(fields.items()))


def _attrs(fields: dict[str, Any]) -> type:
    return attrs.make_class(f"Attrs{next(_numbers)}", {name: attrs.field(type=kind) for name, kind in fields.items()})


def _tuple(fields: dict[str, Any]) -> type:
    kind: Any = NamedTuple(f"Tuple{next(_numbers)}", list(fields.items()))  # type: ignore[misc]  # made at run time
    return cast("type", kind)


def _typed_dict(fields: dict[str, Any]) -> type:
    kind: Any = TypedDict(f"Dict{next(_numbers)}", fields)  # type: ignore[misc]  # made at run time
    return cast("type", kind)


CLASSES: tuple[Callable[[dict[str, Any]], type], ...] = (_struct, _mutable, _dataclass, _attrs, _tuple, _typed_dict)


@st.composite
def _class(draw: st.DrawFn, inner: st.SearchStrategy[Sort]) -> Sort:
    fields = {f"f{place}": draw(inner) for place in range(draw(st.integers(1, 4)))}
    kind = draw(st.sampled_from(CLASSES))({name: sort.type for name, sort in fields.items()})
    values = st.fixed_dictionaries({name: sort.values for name, sort in fields.items()})
    return Sort(kind, values.map(lambda each: kind(**each)))


@st.composite
def _pydantic(draw: st.DrawFn) -> Sort:
    fields = {f"f{place}": draw(st.sampled_from(_FOR_PYDANTIC)) for place in range(draw(st.integers(1, 3)))}
    definitions: dict[str, Any] = {name: (sort.type, ...) for name, sort in fields.items()}
    kind = pydantic.create_model(f"Model{next(_numbers)}", **definitions)
    values = st.fixed_dictionaries({name: sort.values for name, sort in fields.items()})
    return Sort(kind, values.map(lambda each: kind(**each)))


def _containers(inner: st.SearchStrategy[Sort]) -> st.SearchStrategy[Sort]:
    return st.one_of(
        inner.map(lambda sort: Sort(list[sort.type], st.lists(sort.values, max_size=3))),  # type: ignore[name-defined]
        inner.map(lambda sort: Sort(tuple[sort.type, ...], st.lists(sort.values, max_size=3).map(tuple))),  # type: ignore[name-defined]
        inner.map(lambda sort: Sort(dict[str, sort.type], st.dictionaries(_TEXT, sort.values, max_size=3))),  # type: ignore[name-defined]
        inner.map(lambda sort: Sort(sort.type | None, st.none() | sort.values)).filter(_is_told_apart),
        st.sampled_from([sort for sort in LEAVES if sort.type in (int, str, bytes, UUID, date)]).map(
            lambda sort: Sort(frozenset[sort.type], st.frozensets(sort.values, max_size=3))  # type: ignore[name-defined]
        ),
    )


def _is_told_apart(sort: Sort) -> bool:
    try:
        msgspec.inspect.type_info(sort.type)
    except TypeError:
        return False
    return True


PARTS = st.recursive(
    st.sampled_from(LEAVES) | _pydantic(), lambda inner: _class(inner) | _containers(inner), max_leaves=6
)
CONTEXTS = _class(PARTS) | _pydantic()
