"""Which fields a value has, and which types have none."""

from __future__ import annotations

import dataclasses
from datetime import date, time, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec

from . import schema

# Immutable types without parts, whose values are alike where they are equal.
LEAVES: Final = frozenset(
    (type(None), bool, int, str, bytes, date, time, timedelta, timezone, UUID, *schema.TEXTUAL, type(Path()))
)


@cache
def declared_fields(kind: type) -> tuple[str, ...] | None:
    """Return the names of the fields that a class declares, None where it is no class with fields."""
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    if hasattr(kind, "__attrs_attrs__"):
        return tuple(field.name for field in kind.__attrs_attrs__)
    if schema.is_pydantic(kind):
        return ("__pydantic_extra__", "__pydantic_private__")
    return None


def all_fields(value: Any) -> tuple[str, ...] | None:
    """Return the names of what a value of a class with fields holds, declared or not, None where it has no fields."""
    kind: Any = type(value)
    names = declared_fields(kind)
    more = getattr(value, "__dict__", None)
    return names if names is None or not more else tuple(dict.fromkeys((*names, *more)))
