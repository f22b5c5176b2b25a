"""A value that hides itself wherever it might be printed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final


@final
class Secret:
    """A string that shows itself to `reveal()` only: never in repr, str, format, logs, pickles or tracebacks.

    Args:
        value: what to hide.
    """

    __slots__ = ("_reveal",)
    _MASK: Final = "Secret('**********')"

    def __init__(self, value: str) -> None:
        # A closure, so that tools which print the attributes of what they meet do not print this.
        self._reveal: Callable[[], str] = lambda: value

    def reveal(self) -> str:
        """Return the hidden value."""
        return self._reveal()

    def __repr__(self) -> str:
        return self._MASK

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.reveal() == other.reveal()

    def __hash__(self) -> int:
        return hash(self.reveal())

    def __bool__(self) -> bool:
        return bool(self.reveal())

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled or copied: pass the object itself")
