"""Which spellings of an address a table is searched for, and which the database cannot hold at all."""

from __future__ import annotations

from typing import Final

from ..address import normalise

# RFC 5321 ends an address at 254 octets. Twice that, every octet escaped, both spellings still fit a URL of 4 KB.
_LONGEST: Final = 508


def spellings(email: str) -> tuple[str, ...]:
    """Return the spellings of an address: as it was sent, then normalised, each once.

    None at all means that it can belong to nobody: it is longer than addresses are, or it holds what PostgreSQL's text
    cannot hold (NUL, half a surrogate pair).
    """
    return tuple(dict.fromkeys(spelling for spelling in (email, normalise(email)) if _storable(spelling)))


def quoted(value: str) -> str:
    """Return a value quoted for PostgREST's `in.(...)` (docs.postgrest.org, "Reserved characters")."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _storable(email: str) -> bool:
    try:
        return "\x00" not in email and len(email.encode()) <= _LONGEST
    except UnicodeEncodeError:
        return False
