"""How many bytes a value holds in memory."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

# What a value refers to without holding it: the process has these whether the value is kept or not.
_WHOLE = (str, bytes, int, float, type(None), type, Enum, ModuleType, FunctionType, BuiltinFunctionType, MethodType)


def weigh(*values: object, but: Iterable[object] = ()) -> int:
    """Return the bytes values and all they refer to hold, each object counted once.

    Sizes are those of `sys.getsizeof`; classes, enum members, functions and modules are not walked into.

    Args:
        values: what to weigh.
        but: what is not counted, because it is kept and counted elsewhere.
    """
    seen = {id(each) for each in but}
    total = 0
    waiting: list[object] = [*values]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        total += sys.getsizeof(item)
        if not isinstance(item, _WHOLE):
            waiting.extend(_parts(item))
    return total


def _parts(item: object) -> Iterable[object]:
    fields = getattr(type(item), "__struct_fields__", None)
    if fields is not None:
        return [getattr(item, field) for field in fields]
    return [*_items(item), *getattr(item, "__dict__", {}).values(), *_slots(item)]


def _items(item: object) -> Iterable[object]:
    if isinstance(item, Mapping):
        return [*item.keys(), *item.values()]
    if isinstance(item, (tuple, list, AbstractSet, deque)):
        return item
    if isinstance(item, partial):
        return item.func, item.args, item.keywords
    return ()


def _slots(item: object) -> list[object]:
    names = [name for kind in type(item).__mro__ for name in _names(kind) if name not in ("__dict__", "__weakref__")]
    return [getattr(item, name) for name in names if hasattr(item, name)]


def _names(kind: type) -> Iterable[str]:
    slots = kind.__dict__.get("__slots__", ())
    for name in (slots,) if isinstance(slots, str) else slots:
        is_private = name.startswith("__") and not name.endswith("__")
        # As Python itself names what is private to a class.
        yield f"_{kind.__name__.lstrip('_')}{name}" if is_private else name
