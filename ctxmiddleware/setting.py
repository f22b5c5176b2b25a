"""One setting: the variable it is read from, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self, TypeVar

from .option import Option

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Rule:
    """How one variable is read.

    Args:
        variable: its name.
        allowed: the values it may hold, in the words of the error.
        read: converts its text to a value; raises ValueError for a value that is not allowed.
        meaning: one sentence for people.
        secret: whether its value must not be shown.
    """

    variable: str
    allowed: str
    read: Callable[[str], object]
    meaning: str
    secret: bool = False

    @classmethod
    def of(cls, variable: str, option: Option) -> Self:
        """Return the rule of a variable that sets an option."""
        return cls(variable, option.allowed, option.read, option.meaning)

    def default(self, value: V) -> V:
        """Return the field of a dataclass that the variable sets."""
        return field(default=value, metadata={"rule": self})
