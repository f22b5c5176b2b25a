"""One setting: the variable it is read from, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Rule:
    """How one variable is read.

    Args:
        variable: its name.
        allowed: what it may hold, as the error says it.
        read: turns its text into a value; raises ValueError for what is not allowed.
        meaning: one sentence for people.
        secret: whether what it held must not be shown.
    """

    variable: str
    allowed: str
    read: Callable[[str], object]
    meaning: str
    secret: bool = False


def setting(default: object, rule: Rule) -> Any:
    """Return a field of settings, with the rule by which its variable is read."""
    # dataclasses.field returns Any too: each field takes the type it is declared with.
    return field(default=default, metadata={"rule": rule})
