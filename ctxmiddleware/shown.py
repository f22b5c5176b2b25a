"""How an error tells of a value that may be somebody's secret."""

from __future__ import annotations

import re
from typing import Final

NOT_SHOWN: Final = "a value that is not shown"
_LONGEST: Final = 80
# Keys and passwords end in the wrong variable: two of them swapped, or a database's whole address for the project's.
_TELLING: Final = re.compile(r"[@?#]|sb_(secret|publishable)_|eyJ|passw|pwd|secret|token|-----", re.IGNORECASE)


def shown(text: str, *, secret: bool = False) -> str:
    """Return a value quoted, or that it is not shown where it is a secret, may hold one, or is very long.

    Args:
        text: the value.
        secret: whether it is one wherever it stands.
    """
    return NOT_SHOWN if secret or len(text) > _LONGEST or _TELLING.search(text) else repr(text)
