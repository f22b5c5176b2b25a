"""How an address is sent to the database and searched for in a table, and which ones it cannot hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from ..address import normalise

# RFC 5321 ends an address at 254 octets. Of these each takes eight at most in a pattern, and that fits a URL of 4 KB.
_LONGEST: Final = 450
_HIGHEST: Final = "\uffff"
_FIRST_BLANK: Final = "\t"
# How long patterns are believed to be refused: the column may be changed.
_REFUSED_LASTS: Final = 60.0
_WHITE_SPACE: Final = r"[ \t\n\r\f\v]*"


def is_storable(email: str) -> bool:
    """Return whether a table can hold an address.

    It cannot where the address is longer than addresses are, or has what PostgreSQL's text cannot hold (NUL, half a
    surrogate pair).
    """
    try:
        return "\x00" not in email and len(email.encode()) <= _LONGEST
    except UnicodeEncodeError:
        return False


def pattern(email: str) -> str:
    """Return a regular expression of PostgreSQL that matches what is stored under an address, in whatever spelling.

    It is the rule of `normalise` and no more: letters in both cases by their names, for which letters are one in a
    database's own comparison its locale decides. An address's own wildcards are characters like others.
    """
    return f"^{_WHITE_SPACE}{''.join(map(_either_case, normalise(email)))}{_WHITE_SPACE}$"


def _either_case(character: str) -> str:
    if not character.isascii() or character.isdecimal():
        return character
    return f"[{character}{character.upper()}]" if character.isalpha() else f"\\{character}"


def quoted(value: str) -> str:
    """Return a value quoted for PostgREST's `in.(...)` (docs.postgrest.org, "Reserved characters")."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def ranges(email: str) -> str:
    """Return a filter of PostgREST that finds what is stored under an address where no pattern can be searched for.

    A column with a nondeterministic collation can be compared only. By ICU an address in either case, and white space
    after it, lies between the address and the address followed by U+FFFF, which has the highest weight; what begins
    with white space lies together before all else (Unicode Technical Standard 35, part 5). More rows may lie there.
    """
    lower = normalise(email)
    cases = lower, "".join(character.upper() if character.isascii() else character for character in lower)
    least = ",".join(f"email.gte.{quoted(case)}" for case in cases)
    most = ",".join(f"email.lte.{quoted(case + _HIGHEST)}" for case in cases)
    blank = f"email.gte.{quoted(_FIRST_BLANK)},email.lte.{quoted(' ' + _HIGHEST)}"
    return f"(and(or({least}),or({most})),and({blank}))"


class EmailSearch:
    """How addresses are searched for in the table: by a pattern, or by ranges where its collation allows no pattern.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_ranges_until = -math.inf

    @property
    def by_ranges(self) -> bool:
        """Whether patterns were refused a short while ago."""
        return self._clock() < self._by_ranges_until

    def no_patterns(self) -> None:
        """Use ranges for a while, because the database refused a pattern."""
        self._by_ranges_until = self._clock() + _REFUSED_LASTS

    def query(self, email: str) -> dict[str, str]:
        """Return the filter that finds an address in whatever spelling it is stored, and maybe others."""
        return {"or": ranges(email)} if self.by_ranges else {"email": f"match.{pattern(email)}"}
