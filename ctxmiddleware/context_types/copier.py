"""Whether requests may share a context, and a copy of it for each where they may not."""

from __future__ import annotations

import copy
import logging
from typing import Any, Generic, TypeVar

from ..errors import SourceMisconfigured
from . import schema

logger = logging.getLogger("ctxmiddleware.context_types")

T = TypeVar("T")


class Copier(Generic[T]):
    """Gives each caller a context of its own where contexts can be changed.

    Args:
        kind: the type of the contexts.
        copy_mutable: whether those that can be changed are copied.
    """

    def __init__(self, kind: Any, *, copy_mutable: bool = True) -> None:
        is_mutable = not _is_immutable(kind)
        self._copies = is_mutable and copy_mutable
        self._checked: set[type] = set()
        if is_mutable and not copy_mutable:
            logger.warning(
                "contexts of type %s can be changed and are shared by all requests (copy=False)",
                getattr(kind, "__qualname__", kind),
            )

    def __call__(self, context: T) -> T:
        """Return a context that its caller may change."""
        return copy.deepcopy(context) if self._copies else context

    def check(self, context: T) -> None:
        """Copy the first context of each class, before any is served.

        Raises:
            SourceMisconfigured: it cannot be copied.
        """
        if not self._copies or type(context) in self._checked:
            return
        try:
            copy.deepcopy(context)
        except Exception as error:
            raise SourceMisconfigured(
                f"contexts of type {type(context).__name__} can be changed and cannot be copied "
                f"({type(error).__name__}): make the type frozen, or let requests share them with copy=False"
            ) from error
        self._checked.add(type(context))


def _is_immutable(kind: Any) -> bool:
    try:
        return schema.is_immutable(schema.parts_of(kind))
    except (TypeError, NameError):
        return False
