"""How an address is sent to the database and searched for in a table, and which ones it cannot hold."""

from __future__ import annotations

from typing import Final

from ..address import normalise

# RFC 5321 ends an address at 254 octets. Of these each takes eight at most in a pattern, and that fits a URL of 4 KB.
_LONGEST: Final = 450
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
