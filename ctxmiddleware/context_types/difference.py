"""Where two values differ, in value or in type."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from decimal import Decimal
from itertools import zip_longest
from typing import Any, Final

from .fields import LEAVES, all_fields

_MISSING: Final = object()


def difference(one: object, other: object) -> str | None:
    """Return where two values differ first, such as `team.members[]`, None where they are alike.

    Values of different types differ, also where `==` calls them equal. Times with a zone are alike where they are the
    same moment, whatever their offsets. The path holds names of fields and nothing of the values.

    Args:
        one: a value.
        other: what should be alike.
    """
    found = _difference(one, other)
    return found if found is None else found.lstrip(".") or "the whole"


def _difference(one: Any, other: Any) -> str | None:
    """Return the rest of the path from here, empty where the two themselves differ, None where they are alike."""
    kind = type(one)
    if kind is not type(other):
        return ""
    if kind in LEAVES:
        return None if one == other else ""
    members = _members(one, other)
    if members is None:
        return None if _is_alike(one, other) else ""
    for name, left, right in members:
        found = _difference(left, right)
        if found is not None:
            return f"{name}{found}"
    return None


def _is_alike(one: Any, other: Any) -> bool:
    match one:
        case float():
            return one == other or (math.isnan(one) and math.isnan(other))
        case datetime():
            # A time in an hour that comes twice equals none with another zone (PEP 495).
            if one.tzinfo is not None and other.tzinfo is not None:
                return bool(one.astimezone(UTC) == other.astimezone(UTC))
            return bool(one == other) and one.fold == other.fold and one.tzinfo is other.tzinfo
        case Decimal():
            return str(one) == str(other)
        case AbstractSet():
            return bool(one == other) and _kinds(one) == _kinds(other)
    return bool(one == other)


def _members(one: Any, other: Any) -> Iterator[tuple[str, object, object]] | None:
    """Return what two values of one type hold, in pairs with their names; None for values that hold nothing."""
    names = all_fields(one)
    if names is not None:
        return ((f".{each}", getattr(one, each, _MISSING), getattr(other, each, _MISSING)) for each in names)
    match one:
        case Mapping():
            keys = zip_longest(one, other, fillvalue=_MISSING)
            pairs = zip_longest(one.values(), other.values(), fillvalue=_MISSING)
            return iter([*(("{key}", *each) for each in keys), *(("{}", *each) for each in pairs)])
        case list() | tuple():
            places = getattr(one, "_fields", None)
            both = zip_longest(one, other, fillvalue=_MISSING)
            return (((f".{places[place]}" if places else "[]"), *each) for place, each in enumerate(both))
    return None


def _kinds(values: AbstractSet[object]) -> list[str]:
    return sorted(type(each).__qualname__ for each in values)
