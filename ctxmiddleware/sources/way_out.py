"""Details of a database error beside its code: the object concerned, and the remedy."""

from __future__ import annotations

import re
from typing import Final

from ..model import Assignment, Employee, Region, Slot

# The schema that the shipped migration is written for.
MIGRATED_SCHEMA: Final = "hr"
NO_GATEWAY: Final = (
    "SUPABASE_URL leads to PostgREST itself, which serves its root: lead it to a gateway that passes /rest/v1/ on to "
    "that root, as Supabase's does"
)

_TABLES: Final = {"employees": Employee, "assignments": Assignment, "slots": Slot, "regions": Region}
_COLUMNS: Final = {field for kind in _TABLES.values() for field in kind.__struct_fields__}
_MISSING: Final = frozenset({"42703", "42704", "42883", "42P01"})
_OWNED: Final = re.compile(r"\b((?:[A-Za-z_][\w$]{0,62}\.){1,2}[A-Za-z_][\w$]{0,62})\b|\"([\w$.]{1,130})\"")
_NAME: Final = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_$]*\.){0,2}[A-Za-z_][A-Za-z0-9_$]*")


def migration_note(schema: str) -> str:
    """Return what there is to add where the shipped migration is named and the tables are in another schema."""
    return "" if schema == MIGRATED_SCHEMA else f"; it is written for the schema {MIGRATED_SCHEMA}: put {schema} there"


def object_in(message: str, code: str) -> str | None:
    """Return the name of the object that a message of the database is about, or None where none is found.

    The text comes in many languages, and may hold what was asked for: where an object is missing it is the first name
    with its owner, or in quotes; else one of our tables and columns.

    Args:
        message: of PostgreSQL or PostgREST.
        code: its code.
    """
    if code in _MISSING and (found := _OWNED.search(message)):
        return found[1] or found[2]
    for name in _NAME.findall(message):
        owner, _, last = name.rpartition(".")
        if last in _TABLES or (owner and last in _COLUMNS):
            return str(name)
    return None
