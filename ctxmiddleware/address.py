"""The e-mail rule: which spellings are one address."""

from __future__ import annotations

from typing import Final

# A local part of 64 octets, an @, and a domain of 255 (RFC 5321, section 4.5.3.1).
LONGEST: Final = 320
WHITE_SPACE: Final = " \t\n\r\f\v"
_LOWER_ASCII: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def normalise(email: str) -> str:
    """Return the one spelling under which an address is known: ASCII white space stripped, A-Z lowered, nothing else.

    The shipped SQL keeps the same rule with `lower(btrim(...) COLLATE "C")`. Unicode lowering is left out on purpose:
    Python and PostgreSQL disagree on it (U+212A, U+0130), and a disagreement gives one person another's context.
    """
    stripped = email.strip(WHITE_SPACE)
    return stripped.lower() if stripped.isascii() else stripped.translate(_LOWER_ASCII)


def is_legible(name: str) -> bool:
    """Return whether a name can stand for a user: not blank, not longer than an address, nothing unprintable."""
    return bool(name.strip()) and len(name) <= LONGEST and name.isprintable()
