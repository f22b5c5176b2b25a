"""Whether requests may share a context, and a copy of it for each where they may not."""

from __future__ import annotations

import copy
import logging
from datetime import datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Any, Final, Generic, TypeVar

from ..errors import SourceMisconfigured
from . import schema
from .fields import LEAVES, all_fields

logger = logging.getLogger("ctxmiddleware.context_types")

T = TypeVar("T")

_IMMUTABLE: Final = LEAVES | {float, complex, datetime, Decimal}


class Copier(Generic[T]):
    """Gives each caller a context of its own where contexts can be changed.

    Args:
        kind: the type of the contexts.
        copy_mutable: whether those that can be changed are copied.
    """

    def __init__(self, kind: Any, *, copy_mutable: bool = True) -> None:
        is_mutable = not _is_immutable(kind)
        self._name = getattr(kind, "__qualname__", str(kind))
        self._copy_mutable = copy_mutable
        self._copies = is_mutable and copy_mutable
        if is_mutable and not copy_mutable:
            logger.warning("contexts of type %s can be changed and are shared by all requests (copy=False)", self._name)

    def __call__(self, context: T) -> T:
        """Return a context that its caller may change."""
        return copy.deepcopy(context) if self._copies else context

    def admit(self, context: T) -> T:
        """Return a context to be kept, which its source does not change any more.

        Raises:
            SourceMisconfigured: it can be changed and cannot be copied.
        """
        if not self._copies and self._copy_mutable and not is_immutable(context):
            # A class that is derived from the declared one may be another than that.
            self._copies = True
        try:
            return self(context)
        except Exception as error:
            raise SourceMisconfigured(
                f"contexts of type {type(context).__name__} can be changed and cannot be copied "
                f"({type(error).__name__}): make the type frozen, or let requests share them with copy=False"
            ) from error


def is_immutable(value: Any) -> bool:
    """Return whether nothing in a value can be changed."""
    kind: Any = type(value)
    if kind in _IMMUTABLE or isinstance(value, Enum):
        return True
    if isinstance(value, (tuple, frozenset)):
        return not getattr(value, "__dict__", None) and all(map(is_immutable, value))
    names = all_fields(value)
    return names is not None and _is_frozen(kind) and all(is_immutable(getattr(value, name, None)) for name in names)


@cache
def _is_frozen(kind: type) -> bool:
    return not schema.is_pydantic(kind) and schema.is_frozen(kind)


def _is_immutable(kind: Any) -> bool:
    try:
        return schema.is_immutable(schema.parts_of(kind))
    except (TypeError, NameError):
        return False
