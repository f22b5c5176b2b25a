"""How much of what BigQuery's client says may stand in an error of ours."""

from __future__ import annotations

import re
from typing import Final

_LONGEST: Final = 500
# A gateway's whole page may stand in the text; what is behind this is not even looked at.
_LOOKED_AT: Final = 2000
# A pattern with the @ inside would try every character of a long word as the beginning of an address.
_WORD: Final = re.compile(r"[^\s<>()\[\]'\",;:]+")


def without_addresses(text: str) -> str:
    """Return the beginning of a text, with each address in it replaced.

    Args:
        text: what the client said, of any length.
    """
    beginning = text[:_LOOKED_AT]
    return _WORD.sub(_replaced, beginning)[:_LONGEST]


def _replaced(word: re.Match[str]) -> str:
    if "@" in word[0]:
        return "(an address)"
    # Cut in the middle, it may be the half of an address that has no @.
    return "..." if word.end() == _LOOKED_AT else word[0]
