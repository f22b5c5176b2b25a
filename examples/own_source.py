"""Contexts of one's own, from a source of one's own: here the members of a club, out of SQLite."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
from anyio import to_thread
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from ctxmiddleware import ContextPlugin, Identity, SourceUnavailable


class Member(msgspec.Struct, frozen=True):
    """What this app wants to know of whoever asks."""

    email: str
    name: str
    plan: str
    boats: tuple[str, ...]


class Members:
    """Reads members from a SQLite file; each load opens it anew, in a thread.

    Args:
        path: the file, with the tables `members(email, name, plan)` and `boats(email, name)`.
    """

    label = "club"

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()

    async def fetch(self, identity: Identity) -> Member | None:
        """Return the member with this address, or None.

        Raises:
            SourceUnavailable: the file cannot be read now.
        """
        try:
            # Abandoned when the load's time is over: callers and shut-down would wait for the thread.
            return await to_thread.run_sync(self._read, identity.name, abandon_on_cancel=True)
        except sqlite3.OperationalError as error:
            raise SourceUnavailable("the members' file cannot be read", retry_after=5) from error

    def _read(self, email: str) -> Member | None:
        database = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True)
        try:
            found = database.execute(
                "SELECT email, name, plan FROM members WHERE lower(email) = ?", (email,)
            ).fetchone()
            if found is None:
                return None
            boats = database.execute("SELECT name FROM boats WHERE email = ? ORDER BY name", (found[0],)).fetchall()
            address, name, plan = found
            return Member(address, name, plan, tuple(boat for (boat,) in boats))
        finally:
            database.close()


def gateway(scope: Scope) -> Identity | None:
    """Find out who asks where a gateway before the app has signed people in and says so in a header."""
    email = HTTPConnection(scope).headers.get("x-member")
    return Identity(email) if email else None


def create_app(path: Path, *, redis: str | None = None) -> Starlette:
    """Build the app.

    Args:
        path: the members' file.
        redis: the address of what the processes share; None keeps everything in memory.
    """
    plugin = ContextPlugin(source=Members(path), context_type=Member, identify=gateway, name="club", redis=redis)

    async def boats(request: Request) -> Response:
        member = plugin.get(request)
        return JSONResponse({"name": member.name, "boats": list(member.boats)})

    app = Starlette(routes=[Route("/boats", boats)])
    plugin.install(app, required=True)
    return app
