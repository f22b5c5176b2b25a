"""Where two values differ, in value or in type."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from decimal import Decimal
from enum import Enum
from itertools import zip_longest
from typing import Any, Final

import msgspec

_MISSING: Final = object()


def difference(one: object, other: object, path: str = "") -> str | None:
    """Return where two values differ first, such as `team.members[]`, None where they are alike.

    Values of different types differ, also where `==` calls them equal. Times with a zone are alike where they are the
    same moment, whatever their offsets.

    Args:
        one: a value.
        other: what should be alike.
        path: where the two are; it holds names of fields and nothing of the values.
    """
    if type(one) is not type(other):
        return path.lstrip(".") or "the whole"
    members = _members(one, other)
    if members is None:
        return None if _is_alike(one, other) else path.lstrip(".") or "the whole"
    found = (difference(left, right, f"{path}{name}") for name, left, right in members)
    return next((each for each in found if each is not None), None)


def _is_alike(one: Any, other: Any) -> bool:
    match one:
        case float():
            return one == other or (math.isnan(one) and math.isnan(other))
        case datetime():
            return bool(one == other) and one.fold == other.fold and (one.tzinfo is None) is (other.tzinfo is None)
        case Decimal():
            return str(one) == str(other)
        case AbstractSet():
            return bool(one == other) and _kinds(one) == _kinds(other)
    return bool(one == other)


def _members(one: Any, other: Any) -> Iterator[tuple[str, object, object]] | None:
    """Return what two values of one type hold, in pairs with their names; None for values that hold nothing."""
    match one:
        case Mapping():
            keys = zip_longest(one, other, fillvalue=_MISSING)
            pairs = zip_longest(one.values(), other.values(), fillvalue=_MISSING)
            return iter([*(("{key}", *each) for each in keys), *(("{}", *each) for each in pairs)])
        case list() | tuple():
            names = getattr(one, "_fields", None)
            both = zip_longest(one, other, fillvalue=_MISSING)
            return (((f".{names[place]}" if names else "[]"), *each) for place, each in enumerate(both))
        case Enum() | type():
            return None
    fields = _fields_of(one)
    if fields is None:
        return None
    return ((f".{each}", getattr(one, each, _MISSING), getattr(other, each, _MISSING)) for each in fields)


def _fields_of(value: Any) -> list[str] | None:
    """Return the names of what a value of a class with fields holds, declared or not, None where it has no fields."""
    if isinstance(value, msgspec.Struct):
        names = list(value.__struct_fields__)
    elif dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
    elif hasattr(type(value), "__attrs_attrs__"):
        names = [field.name for field in type(value).__attrs_attrs__]
    elif hasattr(type(value), "__pydantic_validator__"):
        names = ["__pydantic_extra__", "__pydantic_private__"]
    else:
        return None
    return list(dict.fromkeys([*names, *getattr(value, "__dict__", ())]))


def _kinds(values: AbstractSet[object]) -> list[str]:
    return sorted(type(each).__qualname__ for each in values)
