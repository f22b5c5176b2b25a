"""Whom the fleet is asked for: what may be said of each user, and how the database changes under it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

import psycopg

from examples.servers import SupabaseProject

USERS: Final = 48


class Standing(Enum):
    """What a version makes of its user."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    ABSENT = "unknown"


def standing(version: int) -> Standing:
    """Return what a version makes of its user: now and then one is barred, or gone, until the next change."""
    return {4: Standing.INACTIVE, 7: Standing.ABSENT}.get(version % 10, Standing.ACTIVE)


@dataclass(frozen=True)
class Facts:
    """What an answer says of its user, apart from the version."""

    email: str
    employee: int
    name: str
    slots: tuple[str, ...]
    regions: tuple[str, ...]


def facts(user: int) -> Facts:
    """Return what is true of a user in every version."""
    return Facts(address(user), user, f"User {user}", (f"S{user}",), (f"R{user % 8}",))


def address(user: int) -> str:
    """Return a user's address."""
    return f"user{user}@example.org"


def title(version: int) -> str:
    """Return what stands in a user's row for a version."""
    return f"v{version}"


def version_in(text: object) -> int | None:
    """Return the version that stands in a row, or None where it is none of ours."""
    return int(text[1:]) if isinstance(text, str) and text[:1] == "v" and text[1:].isdigit() else None


def fill(project: SupabaseProject, users: int = USERS) -> None:
    """Write every user in version 0, each on a slot of its own."""
    with psycopg.connect(project.dsn, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("insert into hr.regions select n, 'R' || n, 'Region ' || n from generate_series(0, 7) n")
        cursor.execute(
            "insert into hr.slots select n, 'S' || n, 'Slot ' || n, n %% 8 from generate_series(0, %s) n", (users - 1,)
        )
        cursor.execute(
            "insert into hr.employees select n, 'user' || n || '@example.org', 'User ' || n, 'v0', 'rep', true "
            "from generate_series(0, %s) n",
            (users - 1,),
        )
        cursor.execute(
            "insert into hr.assignments select n, n, n, true, '2024-01-01', null from generate_series(0, %s) n",
            (users - 1,),
        )


async def change(connection: psycopg.AsyncConnection, user: int, version: int) -> None:
    """Put a user's next version into the database; it is committed when this returns."""
    state = standing(version)
    email = f"gone{user}@example.org" if state is Standing.ABSENT else address(user)
    await connection.execute(
        "update hr.employees set job_title = %s, is_active = %s, email = %s where id = %s",
        (title(version), state is not Standing.INACTIVE, email, user),
    )
